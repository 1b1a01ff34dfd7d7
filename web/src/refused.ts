/** What sinks refused, gathered by what is to be mended: one sink, one source, one reason. */

import type { DeadLetter } from './api';

/** Letters of one sink with one reason, the newest first. */
export interface Alike {
  key: string;
  reader: string;
  source: string;
  reason: string;
  samples: number;
  letters: DeadLetter[];
}

/** The letters by sink, source and reason, in the order in which each was last refused; `letters` are newest first. */
export function alike(letters: readonly DeadLetter[]): Alike[] {
  const found = new Map<string, Alike>();
  for (const letter of letters) {
    const { reader, source, reason } = letter;
    const key = JSON.stringify([reader, source, reason]);
    const group = found.get(key) ?? { key, reader, source, reason, samples: 0, letters: [] };
    found.set(key, group);
    group.samples += letter.count;
    group.letters.push(letter);
  }
  return [...found.values()];
}
