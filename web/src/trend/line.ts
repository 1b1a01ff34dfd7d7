/** What history answers, made into a line to draw: where it goes, where it breaks, where it is doubtful. */

import type { History } from '../api';
import { asNumber, type Value } from '../value';

/** A stretch of time in which a tag was not good; ms UTC, half open. */
export interface Doubt {
  from: number;
  to: number;
  grade: 'uncertain' | 'bad';
}

/** One tag's line. Columns of equal length in time order; null in `values` breaks the line. */
export interface Line {
  /** ms UTC. */
  times: number[];
  values: (number | null)[];
  /** The lowest and highest of each bucket; equal to the value for raw samples. */
  low: (number | null)[];
  high: (number | null)[];
  doubts: Doubt[];
  /** The longest distance between two points that is still no hole, ms. */
  hold: number;
  /** Readings that are no numbers (texts, bytes), newest last: they are listed instead of drawn. */
  texts: { time: number; value: Value }[];
}

/** A raw hole is one when it is this many times the usual distance … */
const HOLE = 10;
/** … and at least this long, ms. */
const SHORTEST_HOLE = 5000;
/** With fewer samples than this there is no usual distance: the tag speaks only when something changes. */
const REGULAR = 20;

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function distances(times: readonly number[]): number[] {
  return times.slice(1).map((time, i) => time - (times[i] ?? time));
}

/**
 * The longest distance between two samples that is still no hole, ms. A tag that speaks regularly has a hole
 * where it falls silent; one that speaks only on change (a set-point) holds its value, so Infinity.
 */
export function longestHold(times: readonly number[], drawnAsSteps: boolean): number {
  if (drawnAsSteps || times.length < REGULAR) return Infinity;
  const usual = distances(times);
  const middle = median(usual);
  // Irregular: the distances vary by more than the middle one, so silence says nothing.
  const spread = median(usual.map((each) => Math.abs(each - middle)));
  return spread > middle ? Infinity : Math.max(HOLE * middle, SHORTEST_HOLE);
}

function empty(hold: number): Line {
  return { times: [], values: [], low: [], high: [], doubts: [], texts: [], hold };
}

function push(line: Line, time: number, value: number | null, low = value, high = value): void {
  line.times.push(time);
  line.values.push(value);
  line.low.push(low);
  line.high.push(high);
}

/** Adds a sample; where a tag that holds its value turns bad, it is drawn to hold up to there. */
function add(line: Line, time: number, number: number | null): void {
  const last = line.values.at(-1) ?? null;
  if (number === null && last !== null && line.hold === Infinity && time - (line.times.at(-1) ?? time) > 1) push(line, time - 1, last);
  push(line, time, number);
}

function doubtful(line: Line, time: number, quality: number, until: number): void {
  const open = line.doubts.at(-1);
  if (open && open.to > time) open.to = time;
  if (quality < 192) line.doubts.push({ from: time, to: until, grade: quality >= 64 ? 'uncertain' : 'bad' });
}

/** Whether a value is held until the next one (states, counters) rather than joined by a slope. */
export function isStepped(values: readonly Value[]): boolean {
  return values.every((value) => value === null || typeof value === 'boolean' || asNumber(value) === null || Number.isInteger(asNumber(value)));
}

/**
 * The line of raw samples. A bad sample breaks it until the next good one; so does a hole in a regular tag.
 * `held` is the good value that was in force at `from` already, null when there was none or it is not known;
 * a line that ends before `to` is held up to there by the caller's live value.
 */
export function rawLine(history: History, from: number, to: number, held: number | null = null): Line {
  const hold = longestHold(history.times, isStepped(history.values));
  const line = empty(hold);
  let last = -Infinity;
  if (held !== null) {
    push(line, from, held);
    last = from;
  }
  history.times.forEach((time, i) => {
    const quality = history.qualities[i] ?? 0;
    const value = history.values[i] ?? null;
    const number = quality >= 64 ? asNumber(value) : null;
    if (time - last > hold && line.times.length > 0) push(line, last + 1, null);
    add(line, time, number);
    last = time;
    doubtful(line, time, quality, to);
    if (number === null && quality >= 64 && value !== null) line.texts.push({ time, value });
  });
  return line;
}

/** The three sums of a bucket, and the holding one where a tag speaks only on change. */
export interface Sums {
  avg: History;
  min: History;
  max: History;
  /** Time-weighted average: has a value in every bucket in which a value was in force. */
  twa: History | null;
}

/** Whether most buckets between the first and the last sample are filled: then an empty one is a hole. */
export function isDense(history: History, every: number): boolean {
  return history.times.length >= REGULAR && median(distances(history.times)) <= every;
}

/** The line of buckets, with the lowest and highest value of each as its band. */
export function bucketLine({ avg, min, max, twa }: Sums, every: number, to: number): Line {
  const line = empty(twa === null ? Math.max(1.5 * every, SHORTEST_HOLE) : Infinity);
  const lows = new Map(min.times.map((time, i) => [time, asNumber(min.values[i])]));
  const highs = new Map(max.times.map((time, i) => [time, asNumber(max.values[i])]));
  const middle = twa ?? avg;
  let last = -Infinity;
  middle.times.forEach((time, i) => {
    const value = asNumber(middle.values[i]);
    // A day has 23 or 25 hours twice a year; nothing shorter than one and a half buckets is a hole.
    if (time - last > 1.5 * every && line.times.length > 0) push(line, last + every, null);
    push(line, time, value, lows.get(time) ?? value, highs.get(time) ?? value);
    last = time;
  });
  avg.times.forEach((time, i) => {
    const quality = avg.qualities[i] ?? 0;
    if (quality < 192) {
      line.doubts.push({ from: time, to: Math.min(time + every, to), grade: quality >= 64 ? 'uncertain' : 'bad' });
    }
  });
  return line;
}

/** A stretch of time in which the tag's source was not connected; ms UTC, half open. */
export interface Outage {
  from: number;
  to: number;
}

/** The outages by what was recorded of a source's connection: from each loss to the next return, or to `to`. */
export function outagesOf(connected: History, to: number): Outage[] {
  const found: Outage[] = [];
  connected.times.forEach((time, i) => {
    const open = found.at(-1);
    if (connected.values[i] === false && (open === undefined || open.to !== Infinity)) found.push({ from: time, to: Infinity });
    else if (connected.values[i] === true && open?.to === Infinity) open.to = time;
  });
  return found.map((outage) => ({ ...outage, to: Math.min(outage.to, to) }));
}

/** Breaks the line where its source was not connected: nothing is known of then, also of a value that did not change. */
export function cut(line: Line, outages: readonly Outage[], every = 0): void {
  for (const { from, to } of outages) {
    line.times.forEach((time, i) => {
      if (time < from || time + every > to || every === 0) return;
      line.values[i] = line.low[i] = line.high[i] = null;
    });
    const next = line.times.findIndex((time) => time >= from);
    const at = next === -1 ? line.times.length : next;
    // Samples that came late out of the outage are true all the same and stay.
    if (at > 0 && line.times[at] !== from) {
      // A value that holds is drawn to hold up to the loss.
      const held = every === 0 && line.hold === Infinity ? (line.values[at - 1] ?? null) : null;
      line.times.splice(at, 0, from, from + 1);
      for (const column of [line.values, line.low, line.high]) column.splice(at, 0, held, null);
    }
    line.doubts.push({ from, to, grade: 'bad' });
  }
}

/** Goes on after the last outage with a value that is known to hold although it did not change since. */
export function resume(line: Line, since: number, value: number): void {
  if (line.values.at(-1) === null && (line.times.at(-1) ?? since) < since) push(line, since, value);
}

/** Adds a live sample at the right edge; an older one than the last is late and left to the next reload. */
export function append(line: Line, time: number, value: Value, quality: number): boolean {
  const last = line.times.at(-1) ?? time;
  if (line.times.length > 0 && time <= last) return false;
  if (time - last > line.hold) push(line, last + 1, null);
  const number = quality >= 64 ? asNumber(value) : null;
  add(line, time, number);
  doubtful(line, time, quality, Infinity);
  if (number === null && quality >= 64 && value !== null) line.texts.push({ time, value });
  return true;
}

/** Forgets what lies before `from`, but for the last point before it, which the line comes from. */
export function trim(line: Line, from: number): void {
  const first = line.times.findIndex((time) => time >= from);
  const cut = (first === -1 ? line.times.length : first) - 1;
  if (cut <= 0) return;
  for (const column of [line.times, line.values, line.low, line.high]) column.splice(0, cut);
  line.doubts = line.doubts.filter((doubt) => doubt.to > from);
  line.texts = line.texts.filter((text) => text.time >= from);
}

/** The lowest, time-weighted average and highest of what is drawn between two times; null where nothing is. */
export function summary(line: Line, from: number, to: number): { low: number; avg: number; high: number } | null {
  let low = Infinity;
  let high = -Infinity;
  let area = 0;
  let held = 0;
  line.times.forEach((time, i) => {
    const value = line.values[i] ?? null;
    const end = Math.min(line.times[i + 1] ?? to, to);
    if (value === null || end < from || time > to) return;
    low = Math.min(low, line.low[i] ?? value);
    high = Math.max(high, line.high[i] ?? value);
    // Each value counts for as long as it was in force; a window of no length counts each value once.
    const share = Math.max(end - Math.max(time, from), 1e-6);
    area += value * share;
    held += share;
  });
  return held === 0 ? null : { low, avg: area / held, high };
}

/** The value in force at a time: of the last point at or before it; null in a gap or before the first. */
export function valueAt(line: Line, time: number): number | null {
  let low = 0;
  let high = line.times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((line.times[middle] ?? Infinity) <= time) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? null : (line.values[low - 1] ?? null);
}

/** How long a tag was not good between two times, ms. */
export function timeInDoubt(line: Line, from: number, to: number): number {
  return line.doubts.reduce((sum, doubt) => sum + Math.max(0, Math.min(doubt.to, to) - Math.max(doubt.from, from)), 0);
}
