import { describe, expect, test } from 'vitest';
import {
  formatAge, formatBytes, formatCount, formatDuration, formatLag, formatNumber, formatRate, formatTime, formatValue, grouped,
} from '../src/format';

const S = 1000;
const MIN = 60 * S;
const H = 60 * MIN;
const D = 24 * H;

describe('ages and durations', () => {
  test.each([
    [0, '0 s'],
    [999, '0 s'],
    [1 * S, '1 s'],
    [59.9 * S, '59 s'],
    [60 * S, '1 min 00 s'],
    [4 * MIN + 5 * S, '4 min 05 s'],
    [10 * MIN, '10 min'],
    [59 * MIN + 59 * S, '59 min'],
    [3 * H + 12 * MIN, '3 h 12 min'],
    [23 * H + 59 * MIN, '23 h 59 min'],
    [5 * D + 3 * H, '5 d 3 h'],
  ])('%d ms is written %s', (milliseconds, text) => {
    expect(formatDuration(milliseconds)).toBe(text);
  });

  test('an age grows with every second and never goes back', () => {
    const texts = new Set(Array.from({ length: 120 }, (_, second) => formatAge(second * S)));
    expect(texts.size).toBe(120);
  });

  test('a source clock that runs ahead is said, a small difference is not', () => {
    expect(formatAge(-1500)).toBe('0 s');
    expect(formatAge(-90 * S)).toBe('1 min 30 s ahead');
  });

  test('a lag shows its tenths while it is short', () => {
    expect([0, 0.04, 0.4, 9.94, 12.7, 90].map(formatLag)).toEqual(['0 s', '0.0 s', '0.4 s', '9.9 s', '12 s', '1 min 30 s']);
  });
});

describe('values', () => {
  test.each([
    [true, 'on'],
    [false, 'off'],
    [null, '–'],
    [undefined, '–'],
    ['', '“”'],
    ['running', 'running'],
    [0, '0'],
    [-0.5, '−0.50000'],
    [42, '42'],
    [1234, '1234'],
    [12345678, '12\u202f345\u202f678'],
    [41.73219, '41.732'],
    [0.0001234567, '0.0001235'],
    [0.00001234, '1.234 e−5'],
    [123456.789, '123\u202f457'],
    [6.02e23, '6.020 e+23'],
    [{ int: '18446744073709551615' }, '18\u202f446\u202f744\u202f073\u202f709\u202f551\u202f615'],
    [{ float: 'NaN' }, 'NaN'],
    [{ float: '-Infinity' }, '−∞'],
    [{ bytes: 'AAH/' }, '3 B of bytes'],
    [{ bytes: 'AAH/', length: 4096 }, '4.1 kB of bytes'],
    [{ text: 'long', length: 5000 }, 'long'],
  ])('%j is written %s', (value, text) => {
    expect(formatValue(value)).toBe(text);
  });

  test('a text too long for a row is cut and says so', () => {
    expect(formatValue('x'.repeat(1000))).toHaveLength(201);
    expect(formatValue('x'.repeat(1000)).endsWith('…')).toBe(true);
  });

  test('neighbouring values have the same number of digits, so nothing jumps', () => {
    const lengths = new Set([41.7, 41.73, 41.7319, 41.731944].map((value) => formatNumber(value).length));
    expect(lengths.size).toBe(1);
  });
});

test('counts, rates and bytes are short and exact enough', () => {
  expect(formatCount(1234567)).toBe('1\u202f234\u202f567');
  expect(grouped('-1234567')).toBe('-1\u202f234\u202f567');
  expect([0, Number.NaN, 0.25, 4.21, 400.4, 61234].map(formatRate)).toEqual(['0/s', '0/s', '0.25/s', '4.2/s', '400/s', '61\u202f234/s']);
  expect([0, 999, 2_300_000, 20e9, 5e15].map(formatBytes)).toEqual(['0 B', '999 B', '2.3 MB', '20.0 GB', '5000 TB']);
});

test('a time is written year first in local time; none is a dash', () => {
  expect(formatTime(new Date(2026, 10, 21, 4, 5, 6).getTime())).toBe('2026-11-21 04:05:06');
  expect(formatTime(Number.NaN)).toBe('–');
});
