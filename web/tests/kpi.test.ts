import { describe, expect, test } from 'vitest';
import type { KpiRecord, Timeline } from '../src/api';
import { dayBeside, hourMarks, siteClock, siteSpan } from '../src/kpi/clock';
import {
  cautions, className, isOld, knownShare, kpiState, lasted, lossLines, madeOf, pareto, percent, pieces, reasonTitle, scrapLines, seconds, stoodFor,
  unknownFolded,
} from '../src/kpi/words';

const RECORD: KpiRecord = {
  machine: 'press-1', window: 'shift', start: 0, end: 28_800_000, day: '2026-01-05', shift: 'early', formula: 'shopfloor-oee-2',
  oee: 0.7, oee_low: 0.7, oee_high: 0.7, availability: 0.9, performance: 0.8, quality: 0.97, mtbf: null, mttr: null, coverage: 1,
  seconds: { production: 3600, unknown: 0 }, good: 100, scrap: 3, minor_stops: 0, incidents: 0, losses: {}, scrap_by_reason: {},
};

describe('a percentage', () => {
  test.each([
    [0.8725, '87.3 %'], [0.87249, '87.2 %'], [1.005, '100.5 %'], [0, '0.0 %'], [1, '100.0 %'], [1e-7, '0.0 %'], [0.00049999, '0.0 %'],
    [0.0005, '0.1 %'], [null, '—'], [undefined, '—'], [Number.NaN, '—'],
  ])('%s is written %s', (fraction, text) => {
    expect(percent(fraction)).toBe(text);
  });

  test('without decimals it is rounded half up as well', () => {
    expect(percent(0.985, 0)).toBe('99 %');
  });
});

test('a duration without meaning is a dash', () => {
  expect([seconds(null), seconds(0), seconds(5400)]).toEqual(['—', '0 s', '1 h 30 min']);
});

describe('the timeline', () => {
  const TIMELINE: Timeline = {
    from: 0, to: 1000, until: 600, state: 'running', since: 500,
    starts: [0, 100, 300, 500], classes: ['production', 'unplanned_stop', 'reheating', 'production'], reasons: ['', 'm/x', '', ''],
  };

  test('the last piece ends where knowledge does', () => {
    expect(pieces(TIMELINE).at(-1)).toEqual({ start: 500, end: 600, name: 'production', reason: '' });
    expect(pieces({ ...TIMELINE, starts: [], classes: [], reasons: [] })).toEqual([]);
  });

  test('its classes sum to its length, also such as this page does not know', () => {
    const sums = lasted(pieces(TIMELINE));
    expect(sums.map(({ label, time }) => [label, time])).toEqual([['Production', 200], ['Stop', 200], ['reheating', 200]]);
  });

  test('words for what a newer server may say', () => {
    expect([className('minor_stop'), className('new')]).toEqual(['Minor stop', 'new']);
    expect([kpiState('down').tone, kpiState('new').text]).toEqual(['bad', 'new']);
  });
});

describe('reasons', () => {
  test('have their title, else the last level of their path', () => {
    const titles = { 'machine/hydraulics': 'Hydraulics' };
    expect(['machine/hydraulics', 'machine/belt', 'fault 22', ''].map((path) => reasonTitle(path, titles))).toEqual([
      'Hydraulics', 'belt', 'fault 22', 'No reason given',
    ]);
  });

  test('the largest come first, the small ones are summed up and nothing is lost', () => {
    const lines = lossLines(Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`r${i}`, { count: 1, seconds: i }])));
    expect(lines.map(({ amount }) => amount)).toEqual([11, 10, 9, 8, 7, 6, 5, 10]);
    expect(lines.at(-1)).toEqual({ path: '…', amount: 10, count: 5 });
    expect(pareto([{ path: 'a', amount: 0, count: 0 }])).toEqual([]);
    expect(scrapLines({ '': 3, a: 5 }).map(({ path }) => path)).toEqual(['a', '']);
  });
});

describe('what makes figures less than they seem', () => {
  test('nothing of good figures', () => {
    expect(cautions(RECORD)).toEqual([]);
  });

  test.each([
    ['states that nobody explained', { unknown_states: { '42': 1, jam: 2 } }, 'states that nobody explained: “42” (1 time), “jam” (2 times)'],
    ['unknown time', { coverage: 0.9, oee_low: 0.6, oee_high: 0.75 }, 'Only 90.0 % of the planned time is known. The OEE of all of it lies between 60.0 % and 75.0 %.'],
    ['unknown time without an OEE', { coverage: 0, oee_low: null, oee_high: null }, 'Only 0.0 % of the planned time is known.'],
    ['a counter that is not known', { coverage: 0.75, oee_low: 0.6, oee_high: 0.8, uncounted_seconds: 7200 }, 'Only 75.0 % of the planned time is known. The OEE of all of it lies between 60.0 % and 80.0 %.'],
    ['an ideal cycle that is too long', { performance: 1.2 }, 'Performance is 120.0 %: the machine is faster than its ideal cycle'],
    ['no ideal cycle', { performance: null, without_ideal: 1 }, '1 unit without an ideal cycle: performance and OEE cannot be told'],
    ['a clock that runs ahead', { from_the_future: 3 }, '3 samples came with a time of the future'],
  ])('%s', (_case, change, text) => {
    const [found] = cautions({ ...RECORD, ...change });
    expect(found?.text).toContain(text);
    expect(found?.detail).not.toBe('');
  });

  test('it is said what is left out of what', () => {
    const said = (unknown: number, uncounted_seconds: number): string =>
      cautions({ ...RECORD, coverage: 0.5, seconds: { unknown }, uncounted_seconds })[0]?.detail ?? '';
    expect(said(3600, 0)).toBe('1 h 00 min without data or with an unknown state are left out, not counted as a stop.');
    expect(said(0, 7200)).toBe('Of 2 h 00 min of production nothing is known of the counter: left out of performance and OEE, not counted as time in which nothing was made.');
    expect(said(3600, 7200)).toMatch(/^1 h 00 min without data .* Of 2 h 00 min of production /);
  });

  test.each([
    [{ coverage: 1 }, ''], [{ coverage: null, availability: null, oee: null }, ''], [{ coverage: 0.75 }, '75.0 % known'],
    [{ coverage: 0.75, uncounted_seconds: 60 }, '75.0 % known'], [{ coverage: 0.75, oee: null }, '75.0 % known'],
    [{ coverage: 0.75, oee: null, uncounted_seconds: 60 }, 'units are not known'], [{ coverage: 0, oee: null }, 'units are not known'],
    [{ coverage: 0, oee: null, availability: null }, 'nothing is known'],
  ])('how much of %o is known is said in short', (change, text) => {
    expect(knownShare({ ...RECORD, ...change })).toBe(text);
  });

  test('figures are old a minute after they were given', () => {
    expect([isOld({ until: 0 }, 59_000), isOld({ until: 0 }, 61_000), isOld({ until: null }, 0)]).toEqual([false, true, true]);
  });
});

test('hours beside each other of which nothing is known are one', () => {
  const hour = (start: number, coverage: number | null, good = 0): KpiRecord => ({ ...RECORD, start, end: start + 1, coverage, availability: null, good, scrap: 0 });
  const found = unknownFolded([hour(0, 0), hour(1, 0), hour(2, 0), hour(3, 0.5), hour(4, 0), hour(6, 0), hour(7, 0, 1), hour(8, null)]);
  expect(found.map(({ start, end }) => [start, end])).toEqual([[0, 3], [3, 4], [4, 5], [6, 7], [7, 8], [8, 9]]);
  const uncounted = { ...RECORD, coverage: 0, availability: 1, good: 0, scrap: 0 };
  expect(unknownFolded([{ ...uncounted, start: 0, end: 1 }, { ...uncounted, start: 1, end: 2 }])).toHaveLength(2);
});

describe('times of the site', () => {
  const SIX = Date.parse('2026-01-05T05:00:00Z');

  test('are in its zone, or in the browser’s where that is not known', () => {
    expect(siteSpan(SIX, SIX + 8 * 3_600_000, 'Europe/Berlin')).toBe('06:00–14:00');
    expect(siteSpan(SIX - 6 * 3_600_000, SIX + 18 * 3_600_000, 'Europe/Berlin')).toBe('00:00–24:00');
    expect(siteClock(SIX, 'Asia/Kolkata')).toBe('10:30');
    expect(siteClock(SIX, 'No/Where')).toMatch(/^\d\d:00$/);
  });

  test('hours are marked where they are full, some twelve at most', () => {
    const marks = hourMarks(SIX, SIX + 8 * 3_600_000, 'Asia/Kolkata');
    expect(marks[0]).toEqual({ at: 0.5 / 8, text: '11:00' });
    expect(marks).toHaveLength(8);
    expect(hourMarks(SIX, SIX + 24 * 3_600_000, 'UTC').length).toBeLessThanOrEqual(13);
  });

  test('the day before the first is the last of the month before', () => {
    expect([dayBeside('2026-03-01', -1), dayBeside('2026-12-31', 1)]).toEqual(['2026-02-28', '2027-01-01']);
  });
});

test('a line says how machines make it, by the names that people know', () => {
  const line = { level: 'line' as const, policy: 'sum' as const, machines: ['a', 'b'], lines: [] };
  const named = (machine: string): string => machine.toUpperCase();
  const record = { ...RECORD, formula: 'shopfloor-oee-1/minor stops: performance/line: bottleneck b' };
  expect(madeOf(line, null, named)).toBe('sum of 2 machines');
  expect(madeOf({ ...line, policy: 'first_down' }, null, named)).toBe('stands with the first of 2 machines');
  expect(madeOf({ ...line, policy: 'bottleneck' }, record, named)).toBe('as its bottleneck B');
  expect(madeOf({ ...line, policy: 'bottleneck' }, null, named)).toBe('as its bottleneck');
  expect(madeOf({ ...line, level: 'area', lines: ['x'] }, null, named)).toBe('sum of 1 line');
});

test('of what a line stood for the longest comes first, what cost no time is left out', () => {
  const lost = { a: { count: 1, seconds: 60 }, b: { count: 3, seconds: 90 }, c: { count: 1, seconds: 0 } };
  expect(stoodFor(lost).map(({ machine }) => machine)).toEqual(['b', 'a']);
});
