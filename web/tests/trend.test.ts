import { describe, expect, test } from 'vitest';
import type { History } from '../src/api';
import { append, bucketLine, cut, isDense, isStepped, longestHold, outagesOf, rawLine, resume, summary, timeInDoubt, trim, valueAt } from '../src/trend/line';
import { formatScale, formatTick } from '../src/trend/ticks';
import { bucketFor, bucketText, coarser, RANGES, rangeOf } from '../src/trend/window';
import type { Value } from '../src/value';

function history(times: number[], values: Value[], qualities?: number[]): History {
  return { tag: 't', unit: '', times, values, qualities: qualities ?? times.map(() => 192), truncated: false };
}

/** A tag that speaks every second from `from` to `to`, seconds. */
function regular(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => (from + i) * 1000);
}

describe('the line of raw samples', () => {
  test('goes through the samples', () => {
    const line = rawLine(history([1000, 2000], [1.5, 2.5]), 0, 3000);
    expect([line.times, line.values, line.low, line.high]).toEqual([[1000, 2000], [1.5, 2.5], [1.5, 2.5], [1.5, 2.5]]);
  });

  test('breaks where a regular tag fell silent', () => {
    const times = [...regular(0, 30), ...regular(60, 90)];
    const line = rawLine(history(times, times.map((time) => time / 7)), 0, 90_000);
    const hole = line.values.indexOf(null);
    expect(line.times[hole]).toBe(29_001);
    expect(line.values.filter((value) => value === null)).toHaveLength(1);
  });

  test('does not break for a tag that speaks only on change, nor for a counter', () => {
    const few = rawLine(history([0, 40_000, 41_000], [40.5, 41.5, 42.5]), 0, 90_000);
    expect(few.values).not.toContain(null);
    const times = [...regular(0, 30), ...regular(60, 90)];
    const counter = rawLine(history(times, times.map((_, i) => i)), 0, 90_000);
    expect(counter.values).not.toContain(null);
  });

  test('breaks where samples are bad, and marks how long', () => {
    const line = rawLine(history([1000, 2000, 5000], [1.5, 9.5, 2.5], [192, 8, 192]), 0, 6000);
    expect(line.values).toEqual([1.5, 1.5, null, 2.5]);
    expect(line.doubts).toEqual([{ from: 2000, to: 5000, grade: 'bad' }]);
    expect(timeInDoubt(line, 0, 3000)).toBe(1000);
  });

  test('draws uncertain samples and marks them', () => {
    const line = rawLine(history([1000, 2000], [1.5, 2.5], [64, 192]), 0, 3000);
    expect(line.values).toEqual([1.5, 2.5]);
    expect(line.doubts).toEqual([{ from: 1000, to: 2000, grade: 'uncertain' }]);
  });

  test('hold a value that only changes now and then up to where it turned bad', () => {
    const line = rawLine(history([1000, 5000, 7000], [40, null, 41], [192, 8, 192]), 0, 9000);
    expect([line.times, line.values]).toEqual([[1000, 4999, 5000, 7000], [40, 40, null, 41]]);
  });

  test('doubts go on to the end when nothing better came', () => {
    expect(rawLine(history([1000], [1.5], [0]), 0, 9000).doubts).toEqual([{ from: 1000, to: 9000, grade: 'bad' }]);
  });

  test('begins with the value that was in force', () => {
    const line = rawLine(history([5000], [2.5]), 1000, 9000, 1.5);
    expect([line.times, line.values]).toEqual([[1000, 5000], [1.5, 2.5]]);
  });

  test('draws bool as 0 and 1 and large integers, lists texts, breaks at what is no number', () => {
    const line = rawLine(history([1, 2, 3, 4, 5], [true, { int: '18446744073709551615' }, 'jam', { float: 'NaN' }, null]), 0, 9);
    expect(line.values).toEqual([1, 2 ** 64, null, null, null]);
    expect(line.texts.map(({ value }) => value)).toEqual(['jam', { float: 'NaN' }]);
  });
});

describe('what counts as a hole', () => {
  test('irregular tags hold their value', () => {
    const times = regular(0, 40).map((time, i) => time + (i % 3 === 0 ? i * 7000 : 0)).sort((a, b) => a - b);
    expect(longestHold(times.map((time, i) => time ** 1.2 + i), false)).toBeGreaterThan(5000);
    expect(longestHold([0, 1, 2], false)).toBe(Infinity);
  });

  test('a fast tag needs five seconds of silence', () => {
    expect(longestHold(regular(0, 40).map((time) => time / 10), false)).toBe(5000);
    expect(longestHold(regular(0, 40), false)).toBe(10_000);
  });

  test('whole numbers, bools and texts are drawn as steps', () => {
    expect(isStepped([1, 2, true, 'x', null])).toBe(true);
    expect(isStepped([1, 2.5])).toBe(false);
  });
});

describe('the line of buckets', () => {
  const times = regular(0, 30);
  const flat = (value: number, at = times) => history(at, at.map(() => value));

  test('has the lowest and highest of each bucket as its band', () => {
    const line = bucketLine({ avg: flat(2), min: flat(1), max: flat(3), twa: null }, 1000, 30_000);
    expect([line.values[5], line.low[5], line.high[5]]).toEqual([2, 1, 3]);
  });

  test('breaks where a dense tag has empty buckets', () => {
    const holed = [...regular(0, 30), ...regular(40, 60)];
    expect(isDense(flat(2, holed), 1000)).toBe(true);
    const line = bucketLine({ avg: flat(2, holed), min: flat(1, holed), max: flat(3, holed), twa: null }, 1000, 60_000);
    expect(line.times[line.values.indexOf(null)]).toBe(30_000);
  });

  test('holds where the tag speaks only on change, with no value where none was in force', () => {
    const sparse = [4000, 20_000];
    expect(isDense(flat(2, sparse), 1000)).toBe(false);
    const twa = history(regular(0, 6), [null, null, null, null, 2, 2]);
    const line = bucketLine({ avg: flat(2, sparse), min: flat(1, sparse), max: flat(3, sparse), twa }, 1000, 6000);
    expect(line.values).toEqual([null, null, null, null, 2, 2]);
    expect(line.high).toEqual([null, null, null, null, 3, 2]);
  });

  test('marks buckets in which something was not good', () => {
    const avg = history([0, 1000], [1, 2], [192, 8]);
    expect(bucketLine({ avg, min: avg, max: avg, twa: null }, 1000, 1500).doubts).toEqual([{ from: 1000, to: 1500, grade: 'bad' }]);
  });
});

describe('the right edge', () => {
  test('grows with live samples and ignores late ones', () => {
    const line = rawLine(history([1000], [1.5]), 0, 2000);
    expect(append(line, 2000, 2.5, 192)).toBe(true);
    expect(append(line, 1500, 9, 192)).toBe(false);
    expect(append(line, 2000, 9, 192)).toBe(false);
    expect(append(line, 3000, 3.5, 8)).toBe(true);
    expect(line.values).toEqual([1.5, 2.5, 2.5, null]);
    expect(line.doubts).toEqual([{ from: 3000, to: Infinity, grade: 'bad' }]);
    append(line, 4000, 3.5, 192);
    expect(line.doubts).toEqual([{ from: 3000, to: 4000, grade: 'bad' }]);
  });

  test('breaks where a regular tag came back after a silence', () => {
    const times = regular(0, 30);
    const line = rawLine(history(times, times.map((time) => time / 7)), 0, 30_000);
    append(line, 60_000, 1.5, 192);
    expect(line.values.slice(-2)).toEqual([null, 1.5]);
    append(line, 61_000, 2.5, 192);
    expect(line.values.slice(-2)).toEqual([1.5, 2.5]);
  });

  test('forgets what left the window, but for the point that the line comes from', () => {
    const line = rawLine(history([1000, 2000, 3000, 4000], [1, 2, 3, 4]), 0, 5000);
    trim(line, 2500);
    expect(line.times).toEqual([2000, 3000, 4000]);
    trim(line, 9000);
    expect(line.times).toEqual([4000]);
  });
});

describe('outages of the source', () => {
  test('last from a loss to the next return, or to the end', () => {
    const connected = history([1000, 2000, 2500, 5000, 6000, 9000], [true, false, false, true, true, false]);
    expect(outagesOf(connected, 10_000)).toEqual([{ from: 2000, to: 5000 }, { from: 9000, to: 10_000 }]);
    expect(outagesOf(history([], []), 10_000)).toEqual([]);
  });

  test('break also a line that only holds its value, and are marked', () => {
    const line = rawLine(history([1000, 5000], [40, 41]), 0, 9000);
    cut(line, [{ from: 2000, to: 5000 }]);
    expect([line.times, line.values]).toEqual([[1000, 2000, 2001, 5000], [40, 40, null, 41]]);
    expect(line.doubts).toEqual([{ from: 2000, to: 5000, grade: 'bad' }]);
    cut(line, [{ from: 8000, to: 9000 }]);
    expect(line.values).toEqual([40, 40, null, 41, 41, null]);
    resume(line, 9000, 41);
    resume(line, 9500, 42);
    expect([line.times.at(-1), line.values.at(-1)]).toEqual([9000, 41]);
  });

  test('empty the buckets that lie wholly in them', () => {
    const at = [0, 1000, 2000, 3000];
    const avg = history(at, [1, 1, 1, 1]);
    const line = bucketLine({ avg, min: avg, max: avg, twa: avg }, 1000, 4000);
    cut(line, [{ from: 1000, to: 3500 }], 1000);
    expect(line.values).toEqual([1, null, null, 1]);
  });
});

test('the summary weighs each value by how long it was in force', () => {
  const line = rawLine(history([0, 9000], [10, 20]), 0, 10_000);
  expect(summary(line, 0, 10_000)).toEqual({ low: 10, avg: 11, high: 20 });
  expect(summary(line, 9500, 10_000)).toMatchObject({ low: 20, high: 20 });
  expect(summary(rawLine(history([], []), 0, 1), 0, 1)).toBeNull();
});

test('the value at a time is the last one before it, none in a gap', () => {
  const line = rawLine(history([1000, 2000, 3000], [1, 2, 3], [192, 0, 192]), 0, 4000);
  expect([999, 1000, 1999, 2500, 3500].map((time) => valueAt(line, time))).toEqual([null, 1, 1, null, 3]);
});

describe('the window', () => {
  test('every range is drawn with at most some 700 points', () => {
    for (const { span } of RANGES) {
      const bucket = bucketFor(span);
      if (bucket !== null) expect(span / bucket).toBeLessThanOrEqual(700);
    }
    expect(bucketFor(300_000)).toBeNull();
    expect(coarser(400 * 86_400_000)).toBe(86_400_000);
  });

  test('an unknown range is fifteen minutes', () => {
    expect(rangeOf('90d').label).toBe('90 d');
    expect(rangeOf('nonsense').id).toBe('15m');
    expect(rangeOf(null).id).toBe('15m');
  });

  test('a bucket is named in its largest unit', () => {
    expect([1000, 30_000, 300_000, 3_600_000, 86_400_000].map(bucketText)).toEqual(['1 s', '30 s', '5 min', '1 h', '1 d']);
  });

  test('labels of the value axis have the decimals that their distance needs', () => {
    expect([40, 40.1, -0.30000000000000004, -0].map((value) => formatScale(value, 0.1))).toEqual(['40.0', '40.1', '−0.3', '0.0']);
    expect([0, 50, 12500].map((value) => formatScale(value, 50))).toEqual(['0', '50', '12\u202f500']);
    expect([formatScale(42.5, 2.5), formatScale(0.025, 0.005), formatScale(3e12, 1e12)]).toEqual(['42.5', '0.025', '3\u202f000\u202f000\u202f000\u202f000']);
  });

  test('labels show the day at midnight and seconds only where they tell labels apart', () => {
    const time = (hour: number, minute = 0, second = 0) => new Date(2026, 10, 21, hour, minute, second).getTime();
    expect(formatTick(time(14, 3, 7), 1000)).toBe('14:03:07');
    expect(formatTick(time(14, 3), 60_000)).toBe('14:03');
    expect(formatTick(time(0), 3_600_000)).toBe('21 Nov');
    expect(formatTick(time(6), 86_400_000)).toBe('21 Nov');
  });
});
