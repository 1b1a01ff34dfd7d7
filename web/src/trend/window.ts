/** Which part of the past a trend shows, and how finely. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A choice of how far back; the window ends now and moves on. */
export interface Range {
  id: string;
  label: string;
  span: number;
}

export const RANGES: readonly Range[] = [
  { id: '5m', label: '5 min', span: 5 * MINUTE },
  { id: '15m', label: '15 min', span: 15 * MINUTE },
  { id: '1h', label: '1 h', span: HOUR },
  { id: '6h', label: '6 h', span: 6 * HOUR },
  { id: '24h', label: '24 h', span: DAY },
  { id: '7d', label: '7 d', span: 7 * DAY },
  { id: '30d', label: '30 d', span: 30 * DAY },
  { id: '90d', label: '90 d', span: 90 * DAY },
];

const DEFAULT: Range = { id: '15m', label: '15 min', span: 15 * MINUTE };

/** The range of this id; 15 minutes for one that is unknown. */
export function rangeOf(id: string | null): Range {
  return RANGES.find((range) => range.id === id) ?? DEFAULT;
}

/** Up to this span the samples themselves are drawn, above it buckets of them. */
const RAW_SPAN = 15 * MINUTE;
/** Buckets that a window is cut into, about; finer than this no screen shows. */
const BUCKETS = 700;

const STEPS: readonly number[] = [
  1000, 2000, 5000, 10_000, 15_000, 30_000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY,
];

/** The bucket for a window of this span, ms; null where raw samples are drawn. */
export function bucketFor(span: number): number | null {
  return span <= RAW_SPAN ? null : coarser(span);
}

/** The smallest usual bucket that cuts the span into not more than some 700, ms. */
export function coarser(span: number): number {
  return STEPS.find((each) => span / each <= BUCKETS) ?? DAY;
}

/** A bucket in words: 5 min, 1 h. */
export function bucketText(every: number): string {
  if (every % DAY === 0) return `${every / DAY} d`;
  if (every % HOUR === 0) return `${every / HOUR} h`;
  return every % MINUTE === 0 ? `${every / MINUTE} min` : `${every / 1000} s`;
}

/** The longest window that may be looked at, ms. */
export const LONGEST = 400 * DAY;
/** The shortest one, ms. */
export const SHORTEST = 1000;
