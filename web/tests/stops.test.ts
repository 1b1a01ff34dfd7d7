import { describe, expect, test } from 'vitest';
import type { KpiRecord, MachineFigures } from '../src/api';
import { siteClock } from '../src/kpi/clock';
import { lossLines, statesToPaste, yamlKey } from '../src/kpi/words';
import type { Edit, Happened, KnownReason, Stop } from '../src/stops/api';
import { changed, words } from '../src/stops/happened';
import { levels, scrapped, stopped, sum, together } from '../src/stops/losses';
import { history, joining, length, mayCut, momentOf, parts, saying } from '../src/stops/parts';
import { ranges } from '../src/stops/ranges';
import { above, mostUsed, search, tree } from '../src/stops/tree';

const MINUTE = 60_000;
const BEGIN = Date.parse('2026-01-05T09:58:00.000Z') + 0.125;
const STOP: Stop = {
  start: BEGIN, end: BEGIN + 17 * MINUTE, class: 'unplanned_stop', state: 'idle', unexplained: true,
  reasons: [
    { reason: 'm/valve', start: BEGIN - 0.125, seconds: 300, by: 'anna', comment: 'bent' },
    { reason: '', start: BEGIN + 5 * MINUTE, seconds: 720, by: '', comment: '' },
  ],
};
const LASTING: Stop = { ...STOP, end: null };

describe('the parts of a stop', () => {
  test('go from its very begin to its very end', () => {
    expect(parts(STOP).map(({ start, end }) => [start, end])).toEqual([
      [BEGIN, BEGIN + 5 * MINUTE], [BEGIN + 5 * MINUTE, BEGIN + 17 * MINUTE],
    ]);
    expect(parts(LASTING).at(-1)?.end).toBe(null);
  });

  test('are cut where somebody cuts, and not outside', () => {
    const cut = parts(STOP, [BEGIN + 9 * MINUTE, BEGIN + 2 * MINUTE, BEGIN - MINUTE, BEGIN + 18 * MINUTE]);
    expect(cut.map(({ start, reason }) => [(start - BEGIN) / MINUTE, reason])).toEqual([[0, 'm/valve'], [2, 'm/valve'], [5, ''], [9, '']]);
    expect(cut.map(({ end }) => ((end ?? 0) - BEGIN) / MINUTE)).toEqual([2, 5, 9, 17]);
  });

  test('are cut where they lie when one lasts', () => {
    expect(parts(LASTING, [BEGIN + 40 * MINUTE]).map(({ end }) => end)).toEqual([BEGIN + 5 * MINUTE, BEGIN + 40 * MINUTE, null]);
    expect(mayCut({ start: BEGIN, end: null }, BEGIN + 2 * MINUTE, BEGIN + 2 * MINUTE)).toBe(false);
    expect(mayCut({ start: BEGIN, end: null }, BEGIN + 2 * MINUTE, BEGIN + 3 * MINUTE)).toBe(true);
    expect(length({ start: BEGIN, end: null }, BEGIN + 3 * MINUTE)).toBe(3 * MINUTE);
  });

  test('what is said of the last one goes to the end of the stop, whenever that is', () => {
    const [first, last] = parts(STOP);
    if (first === undefined || last === undefined) throw new Error('two parts');
    expect(saying(STOP, first, 'm/belt', ' torn ')).toEqual({ from: BEGIN, to: BEGIN + 5 * MINUTE, reason: 'm/belt', comment: 'torn' });
    expect(saying(STOP, last, 'm/belt', '').to).toBe(null);
  });

  test('are joined by the reason of one over both, whichever comes first', () => {
    const [first, last] = parts(STOP);
    if (first === undefined || last === undefined) throw new Error('two parts');
    expect(joining(STOP, first, last)).toEqual({ from: BEGIN, to: null, reason: 'm/valve', comment: 'bent' });
    // What the machine says is no word of anybody.
    expect(joining(STOP, { ...last, reason: 'fault 22' }, first)).toEqual({ from: BEGIN, to: null, reason: '', comment: '' });
  });
});

test('what was said of a stop, of nothing else', () => {
  const said = (from: number, to: number | null): Edit => ({ id: `${from}`, time: 0, from, to, reason: 'x', by: 'anna', comment: '', undone: null });
  const edits = [
    said(BEGIN, null), said(BEGIN + MINUTE, BEGIN + 2 * MINUTE), said(BEGIN - MINUTE, null), said(BEGIN - MINUTE, BEGIN),
    said(BEGIN - MINUTE, BEGIN + 1), said(BEGIN + 17 * MINUTE, null),
  ];
  expect(history(STOP, edits)).toEqual([edits[0], edits[1], edits[4]]);
  expect(history(LASTING, edits)).toEqual([edits[0], edits[1], edits[4], edits[5]]);
});

test('a time of day means the moment of the stop', () => {
  const clock = (time: number): string => siteClock(time, 'Europe/Berlin');
  const at = (text: string): number | null => momentOf(text, BEGIN, BEGIN + 17 * MINUTE, clock);
  expect(at('11:00')).toBe(Date.parse('2026-01-05T10:00:00Z'));
  expect(at('11:00:30')).toBe(Date.parse('2026-01-05T10:00:30Z'));
  expect([at('10:58:00'), at('11:16'), at('soon'), at('')]).toEqual([null, null, null, null]);
});

const reason = (id: string, title: string, used = 0): KnownReason => ({ id, title, comment: false, used });
const REASONS = [reason('machine', 'Machine'), reason('machine/valve/stuck', 'Valve stuck'), reason('machine/valve/worn', 'Worn', 3), reason('MATERIAL/cap', 'Cap missing', 1), reason('other', 'Anything else')];

describe('the tree of reasons', () => {
  test('has categories without a reason of their own, the most used first', () => {
    const shown = tree(REASONS);
    expect(shown.map(({ title, used, reason: own }) => [title, used, own?.id])).toEqual([['Machine', 3, 'machine'], ['Material', 1, undefined], ['Anything else', 0, 'other']]);
    expect(shown[0]?.below.map(({ title }) => title)).toEqual(['Valve']);
    expect(shown[0]?.below[0]?.below.map(({ title }) => title)).toEqual(['Worn', 'Valve stuck']);
  });

  test('is searched by all words, in titles and in what is above', () => {
    expect(search(REASONS, 'valve').map(({ title }) => title)).toEqual(['Worn', 'Valve stuck']);
    expect(search(REASONS, 'WORN machine').map(({ id }) => id)).toEqual(['machine/valve/worn']);
    expect(search(REASONS, 'nothing')).toEqual([]);
    expect(above('machine/valve/worn', REASONS)).toBe('Machine / Valve');
    expect(mostUsed(REASONS, 1).map(({ title }) => title)).toEqual(['Worn']);
  });
});

describe('losses', () => {
  const LOSSES = {
    'machine/valve': { seconds: 600, count: 1 }, 'machine/belt': { seconds: 120, count: 4 }, 'fault 22': { seconds: 300, count: 2 }, '': { seconds: 60, count: 9 },
    'material/cap': { seconds: 0, count: 0 },
  };

  test('by category, and within one; both sum to all that was lost', () => {
    const top = levels(stopped(LOSSES), null, {}, 'amount');
    expect(top.map(({ title, amount, count, opens }) => [title, amount, count, opens])).toEqual([
      ['Machine', 720, 5, true], ['fault 22', 300, 2, false], ['No reason given', 60, 9, false],
    ]);
    expect(sum(top, 'amount')).toBe(lossLines(LOSSES).reduce((total, { amount }) => total + amount, 0));
    const within = levels(stopped(LOSSES), 'machine', { 'machine/valve': 'Valve' }, 'count');
    expect(within.map(({ title, count }) => [title, count])).toEqual([['belt', 4], ['Valve', 1]]);
    expect(sum(within, 'amount')).toBe(top[0]?.amount);
  });

  test('by count another order', () => {
    expect(levels(stopped(LOSSES), null, {}, 'count').map(({ title }) => title)).toEqual(['No reason given', 'Machine', 'fault 22']);
  });

  test('scrap has no counts', () => {
    expect(levels(scrapped({ 'QUALITY/scratch': 3, '': 1 }), null, {}, 'amount').map(({ title, amount }) => [title, amount])).toEqual([['Quality', 3], ['No reason given', 1]]);
  });

  test('of several windows are added', () => {
    const one = { losses: LOSSES, scrap_by_reason: { a: 1 } } as unknown as KpiRecord;
    const both = together([one, one]);
    expect(both.losses['machine/belt']).toEqual({ seconds: 240, count: 8 });
    expect(both.scrap_by_reason).toEqual({ a: 2 });
  });
});

describe('the windows that can be chosen', () => {
  const record = (window: KpiRecord['window'], start: number, end: number, day: string, until?: number): KpiRecord =>
    ({ window, start, end, day, shift: window === 'shift' ? 'early' : '', losses: { a: { seconds: 1, count: 1 } }, scrap_by_reason: {}, ...(until === undefined ? {} : { until }) }) as unknown as KpiRecord;
  const HOUR = 60 * MINUTE;
  const at = Date.parse('2026-01-05T05:00:00Z');
  const live = record('shift', at + 8 * HOUR, at + 16 * HOUR, '2026-01-05', at + 9 * HOUR);
  const figures = (records: KpiRecord[]): MachineFigures => ({ machine: 'm', now: at + 9 * HOUR, reasons: {}, live, records, truncated: false });

  test('are the closed shifts and the running one', () => {
    const found = ranges('shift', figures([record('shift', at, at + 8 * HOUR, '2026-01-05')]), [], 'Europe/Berlin');
    expect(found.map(({ label, running }) => [label, running])).toEqual([['early, Mon 5 Jan, 06:00–14:00', false], ['early, Mon 5 Jan, 14:00–22:00', true]]);
  });

  test('a day that is not over is the sum of its shifts', () => {
    const shifts = [record('shift', at - 8 * HOUR, at, '2026-01-04'), record('shift', at, at + 8 * HOUR, '2026-01-05')];
    const [today, ...more] = ranges('day', figures([]), shifts, 'Europe/Berlin');
    expect(more).toEqual([]);
    expect([today?.label, today?.running, today?.start, today?.losses['a']]).toEqual(['Mon 5 Jan', true, at, { seconds: 2, count: 2 }]);
  });

  test('hours are the closed ones', () => {
    expect(ranges('hour', figures([record('hour', at, at + HOUR, '2026-01-05')]), [], 'Europe/Berlin').map(({ label }) => label)).toEqual(['Mon 5 Jan, 06:00–07:00']);
  });
});

describe('what happened, in words', () => {
  const told = (event: Happened): string[] => {
    const { text, detail } = words(event, { 'm/valve': 'Valve' }, 'Europe/Berlin', BEGIN + 30 * MINUTE);
    return [text, detail];
  };

  test('a stop with who said why', () => {
    expect(told({ kind: 'stop', time: BEGIN, machine: 'm', ...STOP })).toEqual(['Stop, 17 min', 'Valve (anna: “bent”), no reason given']);
    expect(told({ kind: 'stop', time: BEGIN, machine: 'm', ...LASTING })[0]).toBe('Stop, lasts for 30 min');
  });

  test('a reason that was given and taken back', () => {
    const edit: Edit = { id: '1', time: BEGIN, from: BEGIN, to: null, reason: 'm/valve', by: 'anna', comment: 'bent', undone: { time: BEGIN, by: 'ben' } };
    expect(told({ kind: 'edit', machine: 'm', ...edit })).toEqual(['Valve for 10:58–end of the stop', 'anna: “bent”, taken back by ben at 10:58']);
  });

  test('a correction says only what is another now', () => {
    const was = { oee: 0.71, availability: 0.9, performance: 0.8, quality: 1, good: 1150, scrap: null };
    expect(changed(was, { ...was, oee: 0.74, good: 1204 })).toBe('OEE 71.0 % → 74.0 %, good 1150 → 1204');
    expect(changed(was, was)).toBe('the main figures stay as they were');
  });

  test('a source that was away, and one that is', () => {
    const loss = { kind: 'loss', time: BEGIN, source: 'plc', machines: ['m'] } as const;
    expect(told({ ...loss, machines: ['m'], until: BEGIN + 5 * MINUTE, complete: true })).toEqual(['The source plc was away for 5 min 00 s', 'Nothing is missing: it had kept what happened.']);
    expect(told({ ...loss, machines: ['m'], until: null, complete: false })[0]).toBe('The source plc is away for 30 min');
  });

  test('a kind that a newer server knows is named', () => {
    expect(told({ kind: 'gossip', time: 0 } as unknown as Happened)).toEqual(['gossip', '']);
  });
});

test('what to write into the plant file is YAML that means the value', () => {
  expect(['42', 'jam', 'off', 'a: b', '4.5', 'Kaffee pause', '"'].map(yamlKey)).toEqual(['42', 'jam', '"off"', '"a: b"', '"4.5"', '"Kaffee pause"', '"\\""']);
  const lines = statesToPaste('press-1', ['42', 'off']).split('\n').map((line) => line.replace(/ +#.*$/, '')).filter(Boolean);
  expect(lines).toEqual(['machines:', '  - id: press-1', '    states:', '      42: running', '      "off": running']);
});
