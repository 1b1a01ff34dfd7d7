// @vitest-environment jsdom
import { describe, expect, test } from 'vitest';
import { Problem, type AuditRecord, type Component, type Components, type LedgerRow, type Machine, type Permission } from '../src/api';
import { entryOf, failureNote, outcomeIn, outcomeNote, readNumber } from '../src/control/setpoint';
import { allRunning, findings } from '../src/health';
import { accounts, gathered, upstream } from '../src/ledger';
import { alike } from '../src/refused';
import { giver, standing } from '../src/liveness';
import { machineTitle, shortName } from '../src/names';
import { grade, qualityText } from '../src/quality';
import { link, parseRoute } from '../src/routing.svelte';
import { componentState, machineState } from '../src/states';
import { asNumber, sameValue } from '../src/value';
import { hasWords, rowsInView } from '../src/virtual';

const PLC: Component = {
  name: 'plc', kind: 'source', type: 'opcua', state: 'running', since: 0, required: true, last_error: '', last_error_at: null,
  restarts: 0, samples: 0, lag_entries: 0, lag_seconds: 0,
};
const PERMISSION: Permission = {
  tag: 'press-1/SP', role: 'operator', range: [0, 80], momentary: false, lease: 500, expires: 5000, allowed: true, held_by: null,
};

describe('whether a value is live', () => {
  test('only a good value of a running source on a live stream is', () => {
    expect(standing(192, 1, { connected: true, source: PLC })).toEqual({ live: true, grade: 'good', text: 'good', reason: '' });
    expect(standing(216, 1, { connected: true, source: undefined }).live).toBe(true);
  });

  test.each([
    ['the stream is lost', standing(192, 1, { connected: false, source: PLC }), 'stream lost'],
    ['nothing was received', standing(32, null, { connected: true, source: PLC }), 'no value yet'],
    ['the source is away', standing(192, 1, { connected: true, source: { ...PLC, state: 'waiting' } }), 'source away'],
    ['the source is paused', standing(192, 1, { connected: true, source: { ...PLC, state: 'paused' } }), 'source paused'],
    ['it is bad', standing(16, 1, { connected: true, source: PLC }), 'sensor failure'],
    ['it is uncertain', standing(68, 1, { connected: true, source: PLC }), 'last usable value'],
  ])('not when %s, and the reason is given', (_case, result, text) => {
    expect(result.live).toBe(false);
    expect(result.text).toBe(text);
    expect(result.reason).not.toBe('');
  });

  test('what a processor derives is not live once a source is away and nothing was derived since', () => {
    const units: Component = { ...PLC, name: 'units', kind: 'processor' };
    const away: Component = { ...PLC, state: 'waiting', since: 10_000 };
    expect(giver(units, [away, units], 9000)).toBe(away);
    expect(giver(units, [away, units], 20_000)).toBe(units);
    expect(giver(units, [PLC, units], 0)).toBe(units);
    expect(giver(PLC, [away], 0)).toBe(PLC);
    expect(giver(undefined, [away], 0)).toBeUndefined();
  });

  test('limit bits of the quality do not change its meaning, unknown ones keep their grade', () => {
    expect([qualityText(0xc1), qualityText(0x12), qualityText(63)]).toEqual(['good', 'sensor failure', 'bad']);
    expect([191, 192, 63, 64].map(grade)).toEqual(['uncertain', 'good', 'bad', 'uncertain']);
  });
});

describe('a set-point', () => {
  test.each([
    ['45', 45],
    [' 45,5 ', 45.5],
    ['.5', 0.5],
    ['0', 0],
    ['80', 80],
    ['1e1', 10],
  ])('“%s” is read as %d', (text, value) => {
    expect(readNumber(text, PERMISSION, 'bar', 'Double')).toEqual({ value, problem: null });
  });

  test.each([
    ['', 'Enter a number'],
    ['abc', '“abc” is not a number'],
    ['4 5', '“4 5” is not a number'],
    ['NaN', '“NaN” is not a number'],
    ['Infinity', '“Infinity” is not a number'],
    ['0x10', '“0x10” is not a number'],
    ['1,000.5', '“1,000.5” is not a number'],
    ['1e999', 'That number is too large'],
    ['80.01', 'Only 0 to 80 bar is accepted'],
    ['−1', 'Only 0 to 80 bar is accepted'],
  ])('“%s” is refused: %s', (text, problem) => {
    expect(readNumber(text, PERMISSION, 'bar', 'Double')).toEqual({ value: null, problem });
  });

  test('a tag of whole numbers takes no others', () => {
    expect(readNumber('1.5', PERMISSION, '', 'UInt16').problem).toBe('Only whole numbers are accepted');
    expect(readNumber('2', PERMISSION, '', 'UInt16').value).toBe(2);
  });

  test('is entered by its type, or by what it holds where the type is unknown', () => {
    expect([entryOf('Boolean', null), entryOf('', true), entryOf('String', null), entryOf('', 'x'), entryOf('Double', 1), entryOf('', 1)]).toEqual(
      ['switch', 'switch', 'text', 'text', 'number', 'number'],
    );
  });

  test('the outcome is said in words that cannot be mistaken', () => {
    expect(outcomeNote({ value: 42, done: true, detail: 'read back 42.0' }, 'bar')).toEqual({ tone: 'good', text: 'Written and read back 42 bar', detail: '' });
    expect(outcomeNote({ value: 42, done: true, detail: 'written and read back' }, 'bar').text).toBe('Written and read back 42 bar');
    expect(outcomeNote({ value: true, done: true, detail: 'read back true' }, '')).toMatchObject({ text: 'Written and read back on' });
    expect(outcomeNote({ value: 42, done: true, detail: '' }, 'bar').text).toBe('Written: 42 bar');
    expect(outcomeNote({ value: 42, done: false, detail: 'expired' }, 'bar')).toEqual({ tone: 'bad', text: '42 bar was not written', detail: 'expired' });
    expect(outcomeNote({ value: 42, done: null, detail: 'no answer' }, 'bar')).toEqual({
      tone: 'warning', text: 'It is not known whether 42 bar was written', detail: 'no answer. Check the machine before you write again.',
    });
  });

  test('a refusal is certain, a lost answer is not', () => {
    expect(failureNote(new Problem('The value is out of range', 'detail', 422), 95, 'bar')).toMatchObject({ tone: 'bad', text: 'Not written: The value is out of range' });
    expect(failureNote(new Problem('Shopfloor cannot be reached', '', 0), 95, 'bar').tone).toBe('warning');
    expect(failureNote(new Problem('Broken', '', 500), 95, 'bar').tone).toBe('warning');
  });

  test('the record of a command tells its outcome once it has one', () => {
    const record = (event: string, id = 'x'): AuditRecord => ({
      number: 1, time: 0, event, who: '', role: '', tag: 't', value: 42, id, detail: 'read back 42', hash: '',
    });
    expect(outcomeIn([record('issued')], 'x')).toBeNull();
    expect(outcomeIn([record('done'), record('issued')], 'x')).toMatchObject({ done: true });
    expect(outcomeIn([record('failed')], 'x')).toMatchObject({ done: false });
    expect(outcomeIn([record('unknown')], 'x')).toMatchObject({ done: null });
    expect(outcomeIn([record('done', 'other')], 'x')).toBeNull();
  });
});

describe('the health of the plant', () => {
  const journal = { entries: 1, samples: 1, size: 1, oldest: 0, keep: 100, damaged: 0 };
  const plant = (...components: Component[]): Components => ({ now: 8000, components, journal });

  test('says nothing when all is well, and how many run', () => {
    expect(findings(plant(PLC), 8000)).toEqual([]);
    expect([0, 1, 4].map(allRunning)).toEqual(['Nothing is connected yet', 'The only component is running', 'All 4 components are running']);
  });

  test('says what it means first and what the component said second, the worst on top', () => {
    const found = findings(
      plant({ ...PLC, name: 'mqtt', kind: 'sink', type: 'mqtt', state: 'waiting', last_error: 'refused' }, { ...PLC, state: 'misconfigured', last_error: 'certificate unknown' }),
      8000,
    );
    expect(found.map(({ tone }) => tone)).toEqual(['bad', 'warning']);
    expect(found[1]).toEqual({
      tone: 'warning',
      text: 'mqtt has been out of reach for 8 s. Its values wait here and are delivered later',
      detail: 'mqtt (sink, mqtt) waiting: refused',
    });
  });

  test('what is dropped for want of room is not said to be delivered later', () => {
    const away = { ...PLC, name: 'mes', kind: 'sink', type: 'http', state: 'waiting', last_error: 'refused', dropped: 12_345 } as const;
    expect(findings(plant(away), 8000)).toEqual([{
      tone: 'bad',
      text: 'mes has been out of reach for 8 s. There is no room for all that waits for it: 12\u202f345 values were dropped, the oldest first. The rest is delivered later',
      detail: 'mes (sink, http) waiting: refused',
    }]);
    for (const kind of ['sink', 'historian', 'processor'] as const) {
      for (const state of ['paused', 'misconfigured', 'failed', 'stopped'] as const) {
        const [found] = findings(plant({ ...away, kind, state, dropped: 1 }), 8000);
        expect(found?.tone).toBe('bad');
        expect(found?.text).toMatch(/: 1 value was dropped, the oldest first$/);
      }
    }
  });

  test('every state and kind has its words', () => {
    for (const kind of ['source', 'processor', 'sink', 'historian'] as const) {
      for (const state of ['starting', 'waiting', 'paused', 'misconfigured', 'failed', 'stopped'] as const) {
        expect(findings(plant({ ...PLC, kind, state }), 0)[0]?.text).not.toBe('');
        expect(componentState(state).text).not.toBe('');
      }
    }
  });

  test('damage and a full journal are said', () => {
    const found = findings({ ...plant(PLC), journal: { ...journal, damaged: 2, size: 95 } }, 0);
    expect(found.map(({ text }) => text)).toEqual(['2 entries of the journal cannot be read; everything else is intact', 'The journal is 95 % full']);
    const dropped = findings({ ...plant(PLC), journal: { ...journal, dropped: 3 } }, 0);
    expect(dropped.map(({ tone, text }) => [tone, text])).toEqual([['bad', '3 values were dropped to make room, before everything had taken them']]);
    const full = findings({ ...plant(PLC), journal: { ...journal, full: true, salvaged: '3 entries copied' } }, 0);
    expect(full.map(({ tone, detail }) => [tone, detail.slice(0, 9)])).toEqual([['bad', 'a sink is'], ['warning', '3 entries']]);
  });
});

describe('the ledger', () => {
  const row = (reader: string, outcome: string, samples: number, source = 'plc'): LedgerRow => ({
    source, reader, outcome, samples, reason: outcome, first: 1, last: 2,
  });

  test('balances per way when everything is accounted for', () => {
    const [way] = accounts([row('', 'received', 100), row('mqtt', 'base', 10), row('mqtt', 'delivered', 80), row('mqtt', 'filtered', 4), row('mqtt', 'rejected', 1), row('mqtt', 'waiting', 5)]);
    expect(way).toMatchObject({ received: 90, missing: 0, counts: { delivered: 80, filtered: 4, rejected: 1, waiting: 5 } });
    expect(way?.losses.map(({ outcome }) => outcome)).toEqual(['rejected']);
  });

  test('shows what is missing and what is too much', () => {
    const rows = [row('', 'received', 100), row('a', 'delivered', 99), row('b', 'delivered', 101)];
    expect(accounts(rows).map(({ missing }) => missing)).toEqual([1, -1]);
  });

  test('also takes sums per reader, another word for waiting, and several rows of one outcome', () => {
    const rows = [row('a', 'received', 10), row('a', 'delivered', 5), row('a', 'pending', 2), row('a', 'dropped', 1), row('a', 'dropped', 2)];
    expect(accounts(rows)[0]).toMatchObject({ received: 10, missing: 0, counts: { waiting: 2, dropped: 3 } });
  });

  test('does not balance over an outcome that it does not know', () => {
    expect(accounts([row('', 'received', 10), row('a', 'vanished', 10)])[0]?.missing).toBe(10);
  });

  test('says one reason once, for all of its time', () => {
    const lost = (samples: number, reason: string, first: number | null, last: number | null) => ({ ...row('a', 'rejected', samples), reason, first, last });
    expect(gathered([lost(1, 'x', 5, 6), lost(7, 'y', 1, 2), lost(2, 'x', 3, null), lost(1, 'x', null, 9)])).toEqual([
      lost(7, 'y', 1, 2), lost(4, 'x', 3, 9),
    ]);
    const letter = (id: number, reader: string, reason: string, count: number) => ({ id, reader, source: 'plc', time: id, reason, count, samples: [] });
    const found = alike([letter(4, 'a', 'x', 2), letter(3, 'b', 'x', 1), letter(2, 'a', 'y', 1), letter(1, 'a', 'x', 3)]);
    expect(found.map(({ reader, reason, samples, letters }) => [reader, reason, samples, letters.map(({ id }) => id)])).toEqual([
      ['a', 'x', 5, [4, 1]], ['b', 'x', 1, [3]], ['a', 'y', 1, [2]],
    ]);
  });

  test('keeps sources apart and names what they lost themselves', () => {
    const rows = [row('', 'received', 10), row('', 'lost before us', 3), row('', 'received', 7, 'oven'), row('a', 'delivered', 10), row('a', 'delivered', 7, 'oven')];
    expect(accounts(rows).map(({ source, missing }) => [source, missing])).toEqual([['oven', 0], ['plc', 0]]);
    expect(upstream(rows)).toEqual([{ source: 'plc', samples: 3 }]);
  });
});

describe('addresses', () => {
  test('tags with slashes, spaces and signs survive a link', () => {
    const tag = 'press 1/a&b=c?d#e%f/ü';
    const route = parseRoute(link(['machines', tag], { tag: [tag, 'x'] }));
    expect(route.segments).toEqual(['machines', tag]);
    expect(route.query.getAll('tag')).toEqual([tag, 'x']);
  });

  test.each(['', '#', '#/', '/'])('“%s” is the overview', (hash) => {
    expect(parseRoute(hash).segments).toEqual([]);
  });

  test('a broken escape is taken as it stands', () => {
    expect(parseRoute('#/machines/%E0%A4%A').segments).toEqual(['machines', '%E0%A4%A']);
  });
});

test('machine states are read from usual words, bools and the numbers of PackML, others are shown as they are', () => {
  expect([true, 'RUNNING', 'Execute', 'stopped', 'FAULT', 'Emergency_Stop', 'warming', 6, 11, 42, -1, 2.5, null].map((value) => machineState(value).text)).toEqual(
    ['running', 'running', 'execute', 'stopped', 'fault', 'emergency stop', 'warming', 'running', 'held', 'state 42', 'state −1', 'state 2.5000', 'no state yet'],
  );
  expect(machineState('FAULT').tone).toBe('bad');
});

test('names leave out what the page says already', () => {
  expect([shortName('press-1/PV', 'press-1'), shortName('press-10/PV', 'press-1'), shortName('press-1/', 'press-1')]).toEqual(['PV', 'press-10/PV', 'press-1/']);
  expect(machineTitle({ id: 'a', title: '' } as Machine)).toBe('a');
});

test('values are compared and turned into numbers by what they mean', () => {
  expect([true, 2.5, 'x', null, undefined, { int: '9' }, { float: 'NaN' }, Number.NaN].map(asNumber)).toEqual([1, 2.5, null, null, null, 9, null, null]);
  expect(sameValue({ int: '9' }, { int: '9' })).toBe(true);
  expect(sameValue({ int: '9' }, 9)).toBe(false);
});

describe('the virtual table', () => {
  test('makes only the rows in view and a few beside them', () => {
    expect(rowsInView(1000, 40, 0, 600)).toEqual({ first: 0, end: 21 });
    expect(rowsInView(1000, 40, 4000, 600)).toEqual({ first: 94, end: 121 });
    expect(rowsInView(1000, 40, 39_400, 600)).toEqual({ first: 979, end: 1000 });
  });

  test('an empty list, and one that shrank while scrolled, give no impossible rows', () => {
    expect(rowsInView(0, 40, 0, 600)).toEqual({ first: 0, end: 0 });
    const { first, end } = rowsInView(5, 40, 39_400, 600);
    expect(first).toBeLessThan(end);
    expect(end).toBe(5);
  });

  test('the filter wants every word, in any order and case', () => {
    expect(hasWords('press-1/PV pressure of the ram', 'PRESS pv')).toBe(true);
    expect(hasWords('press-1/PV', 'pv  oven')).toBe(false);
  });
});
