/** Which rows of a long list are in view: only those are made, layout is what a long table costs. */

/** A run of rows: from `first` up to, not including, `end`. */
export interface Rows {
  first: number;
  end: number;
}

/** Rows above and below the view that are made as well, so that scrolling and the Tab key find them. */
const SPARE = 6;

/** The rows to make for a list of `count` rows of `height` pixels, scrolled to `top` in a view of `view` pixels. */
export function rowsInView(count: number, height: number, top: number, view: number): Rows {
  const first = Math.max(0, Math.floor(top / height) - SPARE);
  const end = Math.min(count, Math.ceil((top + view) / height) + SPARE);
  return { first: Math.min(first, Math.max(0, count - 1)), end: Math.max(end, 0) };
}

/** Whether a text has every word that was typed, in any order; upper and lower case are the same. */
export function hasWords(text: string, typed: string): boolean {
  const lower = text.toLowerCase();
  return typed.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}
