/** Asks for what a trend draws: raw samples for a short window, sums of buckets for a long one. */

import { getHistory, Problem, type History } from '../api';
import { asNumber } from '../value';
import { bucketLine, cut, isDense, isStepped, longestHold, outagesOf, rawLine, type Line, type Outage } from './line';
import { bucketFor, coarser } from './window';

/** One tag's line and how it is to be drawn. */
export interface Loaded {
  line: Line;
  /** Held until the next value (states, counters, set-points) instead of joined by a slope. */
  stepped: boolean;
  /** The bucket, ms; null where the samples themselves are drawn. */
  every: number | null;
  /** When its source came back the last time, ms UTC; null when it was not away. */
  back: number | null;
}

/** A blank at the left edge longer than this is asked about, ms. */
const BLANK = 5000;
const MOST_RAW = 20_000;

/** When a source was not connected between two times, by what the pipeline recorded; none where it recorded nothing. */
export async function loadOutages(source: string, from: number, to: number, signal: AbortSignal): Promise<Outage[]> {
  try {
    return outagesOf(await getHistory({ tag: `$source/${source}/connected`, from, to }, signal), to);
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return [];
    throw error;
  }
}

/** Asks for a tag's line between two times, ms UTC, with gaps where its source was away. Throws Problem. */
export async function loadLine(
  tag: string, from: number, to: number, outages: Promise<Outage[]>, signal: AbortSignal,
): Promise<Loaded> {
  const [loaded, away] = await Promise.all([loadWhole(tag, from, to, signal), outages]);
  cut(loaded.line, away, loaded.every ?? 0);
  return { ...loaded, back: away.at(-1)?.to ?? null };
}

/** A tag's line while nobody can say what was: it begins with the next live value. */
export function blankLine(tag: string, from: number, to: number): Loaded {
  const nothing: History = { tag, unit: '', times: [], values: [], qualities: [], truncated: false };
  return { line: rawLine(nothing, from, to), stepped: false, every: null, back: null };
}

async function loadWhole(tag: string, from: number, to: number, signal: AbortSignal): Promise<Omit<Loaded, 'back'>> {
  const bucket = bucketFor(to - from);
  if (bucket !== null) return loadBuckets(tag, from, to, bucket, signal);
  const raw = await getHistory({ tag, from, to, limit: MOST_RAW }, signal);
  if (raw.truncated) return loadBuckets(tag, from, to, coarser(to - from), signal);
  const held = await heldBefore(raw, from, to, signal);
  return { line: rawLine(raw, from, to, held), stepped: isStepped(raw.values), every: null };
}

/** What a tag that speaks only on change was at the window's begin: the historian's holding average before its first sample. */
async function heldBefore(raw: History, from: number, to: number, signal: AbortSignal): Promise<number | null> {
  const first = raw.times[0] ?? to;
  const silent = longestHold(raw.times, isStepped(raw.values)) === Infinity;
  if (!silent || first - from < BLANK) return null;
  const every = Math.max(1000, Math.ceil((first - from) / 50_000) * 1000);
  const before = await getHistory({ tag: raw.tag, from, to: first, every, aggregate: 'twa' }, signal);
  const last = before.times.findLastIndex((time) => time + every <= first);
  return last === -1 ? null : asNumber(before.values[last]);
}

async function loadBuckets(tag: string, from: number, to: number, every: number, signal: AbortSignal): Promise<Omit<Loaded, 'back'>> {
  const ask = (aggregate: 'avg' | 'min' | 'max' | 'twa') => getHistory({ tag, from, to, every, aggregate }, signal);
  const [avg, min, max] = await Promise.all([ask('avg'), ask('min'), ask('max')]);
  const twa = isDense(avg, every) ? null : await ask('twa');
  return { line: bucketLine({ avg, min, max, twa }, every, to), stepped: twa !== null, every };
}
