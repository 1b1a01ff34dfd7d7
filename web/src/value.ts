/** Readings as the API gives them (docs/api.md, Values): JSON where it is exact, else an object that says what it is. */

/** One reading. Integers beyond 2⁵³, floats that are not finite, bytes and long texts travel as objects. */
export type Value =
  | boolean
  | number
  | string
  | null
  | { int: string }
  | { float: string }
  | { bytes: string; length?: number }
  | { text: string; length: number };

/** The number to draw or to compare, on = 1 and off = 0; null for what is no finite number. */
export function asNumber(value: Value | undefined): number | null {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (typeof value === 'object' && value !== null && 'int' in value) {
    const number = Number(value.int);
    return Number.isFinite(number) ? number : null;
  }
  return null;
}

/** Whether two readings are the same. */
export function sameValue(a: Value | undefined, b: Value | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  return JSON.stringify(a) === JSON.stringify(b);
}
