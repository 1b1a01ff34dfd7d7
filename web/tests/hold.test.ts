import { describe, expect, test } from 'vitest';
import { IDLE, step, type HoldAnswer, type HoldEvent, type HoldRequest, type HoldState } from '../src/control/hold';

const DOWN: HoldEvent = { type: 'down', tag: 'press-1/Start', press: 'p1' };
const UP: HoldEvent = { type: 'up', reason: 'pointerup', now: 1000 };
const tick = (now = 0): HoldEvent => ({ type: 'tick', now });
const answer = (data: HoldAnswer, now = 0): HoldEvent => ({ type: 'answer', answer: data, now });
const outcome = (event: 'press' | 'release', done: boolean | null, reason = '', press = 'p1'): HoldEvent =>
  answer({ type: 'outcome', event, press, tag: 'press-1/Start', value: event === 'press', done, detail: 'said', reason });

/** Runs events through the button; gives what was sent and where it ended. */
function run(...events: HoldEvent[]): { sent: HoldRequest[]; state: HoldState } {
  let state: HoldState = IDLE;
  const sent: HoldRequest[] = [];
  for (const event of events) {
    const next = step(state, event);
    state = next.state;
    if (next.send !== null) sent.push(next.send);
  }
  return { sent, state };
}

const types = (sent: HoldRequest[]) => sent.map(({ type }) => type);

test('a press is sent, renewed in order, and released with its reason', () => {
  const { sent, state } = run(DOWN, outcome('press', true), tick(), tick(), UP, outcome('release', true));
  expect(sent).toEqual([
    { type: 'press', tag: 'press-1/Start', press: 'p1', seq: 0 },
    { type: 'renew', press: 'p1', seq: 1 },
    { type: 'renew', press: 'p1', seq: 2 },
    { type: 'release', press: 'p1', reason: 'pointerup' },
  ]);
  expect(state).toMatchObject({ phase: 'idle', note: { tone: 'good', text: 'Released' } });
});

test('only the confirmed press is shown as held', () => {
  expect(run(DOWN).state).toMatchObject({ phase: 'pressed', confirmed: false });
  expect(run(DOWN, outcome('press', true)).state).toMatchObject({ phase: 'pressed', confirmed: true });
});

test('whatever ends the holding, and however often, one release is sent', () => {
  const reasons = ['pointerup', 'pointerleave', 'pointercancel', 'blur', 'hidden', 'keyup', 'page left', 'blocked'];
  const ups = reasons.map((reason): HoldEvent => ({ type: 'up', reason, now: 0 }));
  const { sent } = run(DOWN, ...ups, ...ups, outcome('release', true), ...ups);
  expect(types(sent)).toEqual(['press', 'release']);
});

test('letting go without a press sends nothing', () => {
  expect(run(UP, tick(), outcome('release', true)).sent).toEqual([]);
});

test('a second press while one is on is not sent', () => {
  expect(types(run(DOWN, { ...DOWN, press: 'p2' }).sent)).toEqual(['press']);
  expect(types(run(DOWN, UP, { ...DOWN, press: 'p2' }).sent)).toEqual(['press', 'release']);
});

test('a lost connection ends the press and nothing is sent afterwards', () => {
  const { sent, state } = run(DOWN, outcome('press', true), { type: 'closed' }, tick(), UP);
  expect(types(sent)).toEqual(['press']);
  expect(state).toMatchObject({ phase: 'idle', note: { tone: 'warning', text: 'Released: the connection was lost' } });
});

test('when the lease ended on the server the button is up and waits for a new press', () => {
  const { sent, state } = run(DOWN, outcome('press', true), outcome('release', true, 'lease ended'), tick(), UP);
  expect(types(sent)).toEqual(['press']);
  expect(state).toMatchObject({ phase: 'idle', note: { text: 'Released: Shopfloor did not hear from this page in time' } });
});

test('a press that failed, or of which nobody knows, is released', () => {
  for (const done of [false, null]) {
    const { sent, state } = run(DOWN, outcome('press', done), tick(), UP, outcome('release', true));
    expect(types(sent)).toEqual(['press', 'release']);
    expect(state.phase === 'idle' && state.note?.tone).toBe(done === false ? 'bad' : 'warning');
  }
});

test('a short press whose outcome comes after the release keeps what went wrong', () => {
  const { sent, state } = run(DOWN, UP, outcome('press', false), outcome('release', true));
  expect(types(sent)).toEqual(['press', 'release']);
  expect(state).toMatchObject({ phase: 'idle', note: { tone: 'bad', text: 'Not pressed' } });
});

test('a refused press says why and who', () => {
  const refused = answer({ type: 'refused', press: 'p1', tag: 'press-1/Start', title: 'Somebody else holds it', detail: 'anna holds it' });
  const { sent, state } = run(DOWN, refused, tick(), UP);
  expect(types(sent)).toEqual(['press']);
  expect(state).toMatchObject({ note: { text: 'Not pressed: Somebody else holds it', detail: 'anna holds it' } });
});

test('a release that is not confirmed is said so', () => {
  expect(run(DOWN, UP, outcome('release', false)).state).toMatchObject({ note: { tone: 'warning', text: 'The release is not confirmed' } });
});

test('a release without an answer is not taken for one', () => {
  const before = run(DOWN, UP, tick(5000)).state;
  expect(before.phase).toBe('releasing');
  expect(run(DOWN, UP, tick(6001)).state).toMatchObject({ note: { text: 'It is not known whether it was released' } });
});

test('answers to other presses, renewals and errors change nothing', () => {
  const pressed = run(DOWN).state;
  for (const event of [
    outcome('release', true, '', 'other'),
    answer({ type: 'renewed', press: 'p1', seq: 1 }),
    answer({ type: 'gone', press: 'other' }),
    answer({ type: 'error', title: 'bad', detail: 'bad' }),
  ]) {
    expect(step(pressed, event).state).toEqual(pressed);
  }
});

describe('in any order of events', () => {
  const events: HoldEvent[] = [
    DOWN, UP, tick(1), tick(99_999), { type: 'closed' }, outcome('press', true), outcome('press', false), outcome('press', null),
    outcome('release', true), outcome('release', false, 'lease ended'), answer({ type: 'gone', press: 'p1' }),
    answer({ type: 'refused', press: 'p1', tag: 't', title: 't', detail: 'd' }),
  ];

  test('there is never more than one release for a press, never one without a press, never a renewal after it', () => {
    let seed = 42;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return (seed >> 8) % below;
    };
    for (let round = 0; round < 3000; round += 1) {
      const order = Array.from({ length: 12 }, (_, i): HoldEvent => {
        const event = events[random(events.length)] ?? DOWN;
        return event.type === 'down' ? { ...event, press: i === 0 ? 'p1' : `p${i}` } : event;
      });
      const open = new Set<string>();
      const over = new Set<string>();
      for (const request of run(...order).sent) {
        if (request.type === 'press') {
          expect(open.has(request.press) || over.has(request.press)).toBe(false);
          open.add(request.press);
        } else {
          expect(open.has(request.press)).toBe(true);
          if (request.type === 'release') {
            open.delete(request.press);
            over.add(request.press);
          }
        }
      }
    }
  });

  test('letting go always ends the pressed state', () => {
    for (const first of events) for (const second of events) {
      expect(run(DOWN, first, second, UP).state.phase).not.toBe('pressed');
    }
  });
});
