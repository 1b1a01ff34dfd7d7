/** How values, ages, times and numbers are written: the same everywhere in the console. */

import type { Value } from './value';

const NARROW_SPACE = '\u202f';
const NOTHING = '–';
const MOST_TEXT = 200;

/** Digits in groups of three from five digits on: 12 345 678 (narrow spaces). */
export function grouped(digits: string): string {
  const [, sign = '', whole = '', rest = ''] = /^(-?)(\d+)(.*)$/s.exec(digits) ?? [];
  if (whole.length < 5) return digits;
  return sign + whole.replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE) + rest;
}

/** A whole number with grouped digits. */
export function formatCount(count: number): string {
  return grouped(Math.round(count).toString());
}

/** Five significant digits, or all of a whole number; powers of ten only where nothing else is readable. */
export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return grouped(value.toString()).replace('-', '−');
  if (size >= 1e9 || size < 1e-4) return value.toExponential(3).replace('e', ' e').replaceAll('-', '−');
  const decimals = Math.max(0, Math.min(7, 4 - Math.floor(Math.log10(size))));
  return grouped(value.toFixed(decimals)).replace('-', '−');
}

/** A reading for people: bool as on/off, a number in five significant digits, text as it is. */
export function formatValue(value: Value | undefined): string {
  if (value === null || value === undefined) return NOTHING;
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (typeof value === 'number') return formatNumber(value);
  if (typeof value === 'string') return formatText(value);
  if ('int' in value) return grouped(value.int).replace('-', '−');
  if ('float' in value) return formatNumber(Number(value.float));
  if ('text' in value) return formatText(value.text);
  return `${formatBytes(value.length ?? byteLength(value.bytes))} of bytes`;
}

function formatText(text: string): string {
  if (text === '') return '“”';
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}…` : text;
}

function byteLength(base64: string): number {
  const padding = base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0;
  return (base64.length / 4) * 3 - padding;
}

/** How long something lasts or lasted: 3 s, 4 min 05 s, 3 h 12 min, 5 d 3 h. Never negative. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (minutes === 0) return `${seconds} s`;
  if (minutes < 10) return `${minutes} min ${String(seconds % 60).padStart(2, '0')} s`;
  if (hours === 0) return `${minutes} min`;
  if (days === 0) return `${hours} h ${String(minutes % 60).padStart(2, '0')} min`;
  return `${days} d ${hours % 24} h`;
}

/** The age of a value; a source clock that runs ahead by more than two seconds is said, not hidden. */
export function formatAge(milliseconds: number): string {
  if (milliseconds < -2000) return `${formatDuration(-milliseconds)} ahead`;
  return formatDuration(milliseconds);
}

/** A short duration with its tenths: 0.4 s, 12 s. For lags, where zero means that nothing waits. */
export function formatLag(seconds: number): string {
  if (seconds <= 0) return '0 s';
  return seconds < 10 ? `${seconds.toFixed(1)} s` : formatDuration(seconds * 1000);
}

/** A rate with at most three significant digits: 0.25/s, 4.2/s, 400/s. */
export function formatRate(perSecond: number): string {
  if (!(perSecond > 0)) return '0/s';
  const decimals = perSecond < 1 ? 2 : perSecond < 10 ? 1 : 0;
  return `${grouped(perSecond.toFixed(decimals))}/s`;
}

/** Bytes in the largest decimal unit: 1.2 GB. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1000 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return `${unit === 0 || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${units[unit] ?? ''}`;
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}

/** Local date and time, year first: 2026-11-21 14:03:07. */
export function formatTime(milliseconds: number): string {
  const time = new Date(milliseconds);
  if (Number.isNaN(time.getTime())) return NOTHING;
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${formatClock(milliseconds)}`;
}

/** Local time of day: 14:03:07. */
export function formatClock(milliseconds: number): string {
  const time = new Date(milliseconds);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

/** `one` or `many` with its number: 1 machine, 4 machines. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}
