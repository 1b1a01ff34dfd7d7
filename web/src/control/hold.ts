/**
 * Press and hold as a state machine without clock, socket or page, so that every order of events can be tested.
 *
 * A press is a lease: it is renewed while the button is held and released exactly once. Whatever ends it,
 * the button must be let go and pressed anew; nothing here ever presses by itself.
 */

/** From the page to `/api/hold`. */
export type HoldRequest =
  | { type: 'press'; tag: string; press: string; seq: number }
  | { type: 'renew'; press: string; seq: number }
  | { type: 'release'; press: string; reason: string };

/** From `/api/hold` to the page. */
export type HoldAnswer =
  | {
      type: 'outcome';
      event: 'press' | 'release';
      press: string;
      tag: string;
      value: boolean;
      done: boolean | null;
      detail: string;
      reason: string;
    }
  | { type: 'renewed'; press: string; seq: number }
  | { type: 'refused'; press: string; tag: string; title: string; detail: string }
  | { type: 'gone'; press: string }
  | { type: 'error'; title: string; detail: string };

/** How a message is to be taken. */
export type Tone = 'plain' | 'good' | 'warning' | 'bad';

/** What the person is told about the press. */
export interface Note {
  tone: Tone;
  text: string;
  detail: string;
}

export type HoldState =
  | { phase: 'idle'; note: Note | null }
  | { phase: 'pressed'; press: string; seq: number; confirmed: boolean }
  | { phase: 'releasing'; press: string; since: number; note: Note | null };

export type HoldEvent =
  | { type: 'down'; tag: string; press: string }
  | { type: 'up'; reason: string; now: number }
  | { type: 'tick'; now: number }
  | { type: 'answer'; answer: HoldAnswer; now: number }
  | { type: 'closed' };

/** The next state, and what to send. */
export interface Step {
  state: HoldState;
  send: HoldRequest | null;
}

/** How often a press is renewed, ms; the lease is at least 2.5 times that. */
export const RENEW_EVERY = 200;
/** An answer to a release that takes longer is missing, ms. */
const ANSWER_PATIENCE = 5000;

export const IDLE: HoldState = { phase: 'idle', note: null };

const CONNECTION_LOST: Note = {
  tone: 'warning',
  text: 'Released: the connection was lost',
  detail: 'Shopfloor releases a press as soon as its connection closes. Check the machine.',
};

/** After a press that could not even be sent. */
export const UNSENT: HoldState = {
  phase: 'idle',
  note: { tone: 'bad', text: 'Not pressed: no connection to Shopfloor', detail: 'Nothing was sent.' },
};

const REASONS: Readonly<Record<string, string>> = {
  'lease ended': 'Shopfloor did not hear from this page in time',
  'socket closed': 'the connection was lost',
  superseded: 'it was pressed anew',
  shutdown: 'Shopfloor is stopping',
};

function idle(tone: Tone, text: string, detail = ''): Step {
  return { state: { phase: 'idle', note: { tone, text, detail } }, send: null };
}

function stay(state: HoldState): Step {
  return { state, send: null };
}

/** One step of the button: what an event makes of a state. */
export function step(state: HoldState, event: HoldEvent): Step {
  switch (event.type) {
    case 'down':
      if (state.phase !== 'idle') return stay(state);
      return {
        state: { phase: 'pressed', press: event.press, seq: 0, confirmed: false },
        send: { type: 'press', tag: event.tag, press: event.press, seq: 0 },
      };
    case 'up':
      return state.phase === 'pressed' ? release(state.press, event.reason, event.now, null) : stay(state);
    case 'tick':
      return tick(state, event.now);
    case 'closed':
      return state.phase === 'idle' ? stay(state) : stay({ phase: 'idle', note: CONNECTION_LOST });
    case 'answer':
      return answered(state, event.answer, event.now);
  }
}

function release(press: string, reason: string, now: number, note: Note | null): Step {
  return { state: { phase: 'releasing', press, since: now, note }, send: { type: 'release', press, reason } };
}

function tick(state: HoldState, now: number): Step {
  if (state.phase === 'pressed') {
    const seq = state.seq + 1;
    return { state: { ...state, seq }, send: { type: 'renew', press: state.press, seq } };
  }
  if (state.phase === 'releasing' && now - state.since > ANSWER_PATIENCE) {
    return idle('warning', 'It is not known whether it was released', 'No answer came to the release. Check the machine.');
  }
  return stay(state);
}

function answered(state: HoldState, answer: HoldAnswer, now: number): Step {
  if (state.phase === 'idle' || answer.type === 'error' || answer.press !== state.press) return stay(state);
  switch (answer.type) {
    case 'renewed':
      return stay(state);
    case 'refused':
      return idle('bad', `Not pressed: ${answer.title}`, answer.detail);
    case 'gone':
      return idle('warning', 'Released: the press was over already', 'Let go and press again.');
    case 'outcome':
      return answer.event === 'press' ? pressOutcome(state, answer, now) : releaseOutcome(state, answer);
  }
}

type Outcome = Extract<HoldAnswer, { type: 'outcome' }>;
type Busy = Exclude<HoldState, { phase: 'idle' }>;

function pressOutcome(state: Busy, outcome: Outcome, now: number): Step {
  if (outcome.done === true) return stay(state.phase === 'pressed' ? { ...state, confirmed: true } : state);
  const note: Note =
    outcome.done === false
      ? { tone: 'bad', text: 'Not pressed', detail: outcome.detail }
      : { tone: 'warning', text: 'It is not known whether it was pressed', detail: outcome.detail };
  // A press that failed is released all the same: that is the safe direction.
  return state.phase === 'pressed' ? release(state.press, 'press failed', now, note) : stay({ ...state, note });
}

function releaseOutcome(state: Busy, outcome: Outcome): Step {
  if (outcome.done !== true) {
    return idle('warning', 'The release is not confirmed', `${outcome.detail}. It is written as soon as the machine is back.`);
  }
  if (state.phase === 'releasing') return stay({ phase: 'idle', note: state.note ?? { tone: 'good', text: 'Released', detail: outcome.detail } });
  const why = REASONS[outcome.reason] ?? outcome.reason;
  return idle('warning', `Released: ${why}`, 'Let go and press again.');
}
