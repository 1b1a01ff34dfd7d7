/** A stop and its parts: what can be said of which, and where it is cut. */

import type { Edit, NewReason, Stop } from './api';

/** A part of a stop, or a piece of one that somebody has just cut; `end` null: it lasts. Times in ms UTC. */
export interface Part {
  start: number;
  end: number | null;
  reason: string;
  by: string;
  comment: string;
}

/** Parts are told by their begin; what people cut is never finer than this, ms. */
const FINE = 1000;

/** The parts of a stop, the first and the last to its very ends, cut once more at these times. */
export function parts(stop: Stop, cuts: readonly number[] = []): Part[] {
  const told = stop.reasons.map((part, place) => ({
    start: place === 0 ? stop.start : part.start,
    end: place === stop.reasons.length - 1 ? stop.end : (stop.reasons[place + 1]?.start ?? stop.end),
    reason: part.reason, by: part.by, comment: part.comment,
  }));
  return told.flatMap((part) => {
    const inside = cuts.filter((cut) => mayCut(part, cut, Infinity)).sort((a, b) => a - b);
    const starts = [part.start, ...inside];
    return starts.map((start, place) => ({ ...part, start, end: starts[place + 1] ?? part.end }));
  });
}

/** Whether a part can be cut there: a second at least is left on both sides. */
export function mayCut(part: Pick<Part, 'start' | 'end'>, time: number, now: number): boolean {
  return time >= part.start + FINE && time <= (part.end ?? now) - FINE;
}

/** What is to be sent so that a reason counts for a part; its last part goes to the end of the stop, whenever that is. */
export function saying(stop: Stop, part: Pick<Part, 'start' | 'end'>, reason: string, comment: string): NewReason {
  return { from: part.start, to: part.end === stop.end ? null : part.end, reason, comment: comment.trim() };
}

/** What makes one of two neighbours: the reason of the one for both. */
export function joining(stop: Stop, one: Part, other: Part): NewReason {
  const [first, last] = one.start < other.start ? [one, other] : [other, one];
  const byHand = one.by !== '';
  return saying(stop, { start: first.start, end: last.end }, byHand ? one.reason : '', byHand ? one.comment : '');
}

/** What was said of a stop, the newest first. */
export function history(stop: Stop, edits: readonly Edit[]): Edit[] {
  return edits.filter(({ from, to }) =>
    to === null ? from >= stop.start && (stop.end === null || from < stop.end) : to > stop.start && (stop.end === null || from < stop.end),
  );
}

/** How long a part lasts so far, ms. */
export function length({ start, end }: Pick<Part, 'start' | 'end'>, now: number): number {
  return (end ?? Math.max(now, start)) - start;
}

/** A local time of day, `10:58` or `10:58:30`, as the moment in a span that is meant; null for none. `clock` writes one. */
export function momentOf(text: string, start: number, end: number, clock: (time: number) => string): number | null {
  const [, hours = '', minutes = '', seconds = '00'] = /^(\d{2}):(\d{2})(?::(\d{2}))?$/.exec(text) ?? [];
  if (hours === '') return null;
  for (let minute = Math.floor(start / 60_000) * 60_000; minute < end; minute += 60_000) {
    const found = minute + Number(seconds) * 1000;
    if (clock(minute) === `${hours}:${minutes}` && found >= start && found <= end) return found;
  }
  return null;
}
