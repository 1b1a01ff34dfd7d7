/** A set-point before and after it is written: what may be entered, and what to say of the outcome. */

import { Problem, type AuditRecord, type CommandOutcome, type Permission } from '../api';
import { formatValue } from '../format';
import type { Value } from '../value';
import type { Note } from './hold';

/** How a set-point is entered, by its data type or, where that is unknown, by the value it has now. */
export type Entry = 'number' | 'switch' | 'text';

const WHOLE = /^(s?byte|u?int(8|16|32|64)?)$/i;

export function entryOf(dataType: string, value: Value | undefined): Entry {
  if (/^bool/i.test(dataType) || typeof value === 'boolean') return 'switch';
  if (/^(string|text|localizedtext)/i.test(dataType)) return 'text';
  return typeof value === 'string' && dataType === '' ? 'text' : 'number';
}

/** The value that was entered, or what is wrong with it in words. */
export type Entered = { value: Value; problem: null } | { value: null; problem: string };

function refuse(problem: string): Entered {
  return { value: null, problem };
}

/** The limits in words: 0 to 80 bar. */
export function rangeText(range: [number, number], unit: string): string {
  return `${formatValue(range[0])} to ${formatValue(range[1])}${unit === '' ? '' : ` ${unit}`}`;
}

/** Reads a number as people write it (comma or point), within the permission's range. */
export function readNumber(text: string, permission: Permission, unit: string, dataType: string): Entered {
  const plain = text.trim().replace(',', '.').replace('−', '-');
  if (plain === '') return refuse('Enter a number');
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return refuse(`“${text.trim()}” is not a number`);
  const value = Number(plain);
  if (!Number.isFinite(value)) return refuse('That number is too large');
  if (WHOLE.test(dataType) && !Number.isInteger(value)) return refuse('Only whole numbers are accepted');
  const { range } = permission;
  if (range !== null && (value < range[0] || value > range[1])) {
    return refuse(`Only ${rangeText(range, unit)} is accepted`);
  }
  return { value, problem: null };
}

/** What became of a command, in words. */
export function outcomeNote(outcome: Pick<CommandOutcome, 'value' | 'done' | 'detail'>, unit: string): Note {
  const written = `${formatValue(outcome.value)}${unit === '' ? '' : ` ${unit}`}`;
  if (outcome.done === true) {
    const read = /^(?:written and )?read back(?: (.+))?$/i.exec(outcome.detail);
    if (read === null) return { tone: 'good', text: `Written: ${written}`, detail: outcome.detail };
    const back = read[1] === undefined ? formatValue(outcome.value) : readBack(read[1], outcome.value);
    return { tone: 'good', text: `Written and read back ${back}${unit === '' ? '' : ` ${unit}`}`, detail: '' };
  }
  if (outcome.done === false) return { tone: 'bad', text: `${written} was not written`, detail: outcome.detail };
  return {
    tone: 'warning',
    text: `It is not known whether ${written} was written`,
    detail: /look at the machine/.test(outcome.detail)
      ? outcome.detail
      : `${outcome.detail === '' ? '' : `${outcome.detail}. `}Check the machine before you write again.`,
  };
}

/** The text that was read back, formatted as its value where it says the same. */
function readBack(text: string, value: Value): string {
  if (typeof value === 'boolean' && text.toLowerCase() === String(value)) return formatValue(value);
  const number = Number(text);
  return text.trim() !== '' && Number.isFinite(number) ? formatValue(number) : text;
}

/** What to say when a request failed: refused for sure, or nobody knows. */
export function failureNote(error: unknown, value: Value, unit: string): Note {
  if (error instanceof Problem && error.status >= 400 && error.status < 500) {
    return { tone: 'bad', text: `Not written: ${error.message}`, detail: error.detail };
  }
  const detail = error instanceof Problem ? error.message : String(error);
  return outcomeNote({ value, done: null, detail }, unit);
}

/** The outcome of a command that stands in the audit records, or null when it has none there. */
export function outcomeIn(records: readonly AuditRecord[], id: string): Pick<CommandOutcome, 'value' | 'done' | 'detail'> | null {
  const ends: Readonly<Record<string, boolean | null>> = { done: true, failed: false, refused: false, unknown: null };
  const record = records.find((each) => each.id === id && each.event in ends);
  if (record === undefined) return null;
  return { value: record.value, done: ends[record.event] ?? null, detail: record.detail };
}
