/** The tree of reasons as people choose from it: the most used first. */

import type { KnownReason } from './api';

/** A category, or a reason with the finer ones below it. */
export interface Branch {
  path: string;
  title: string;
  /** What can be chosen here; null where only something below can. */
  reason: KnownReason | null;
  below: Branch[];
  /** How often it, or something below it, was given lately. */
  used: number;
}

/** The last level of a path, as words. */
function spoken(path: string): string {
  const last = path.split('/').at(-1) ?? path;
  const words = last.replaceAll('_', ' ');
  return words === words.toUpperCase() ? words.charAt(0) + words.slice(1).toLowerCase() : words.charAt(0).toUpperCase() + words.slice(1);
}

/** The reasons as a tree; of what was used alike often the plant file's order. */
export function tree(reasons: readonly KnownReason[]): Branch[] {
  const top: Branch[] = [];
  const known = new Map<string, Branch>();
  const branch = (path: string): Branch => {
    const found = known.get(path);
    if (found !== undefined) return found;
    const made: Branch = { path, title: spoken(path), reason: null, below: [], used: 0 };
    known.set(path, made);
    const parent = path.includes('/') ? branch(path.slice(0, path.lastIndexOf('/'))) : null;
    (parent?.below ?? top).push(made);
    return made;
  };
  for (const reason of reasons) {
    const made = branch(reason.id);
    made.reason = reason;
    made.title = reason.title;
    for (let path = reason.id; path !== ''; path = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '') branch(path).used += reason.used;
  }
  return sorted(top);
}

function sorted(branches: Branch[]): Branch[] {
  for (const { below } of branches) sorted(below);
  return branches.sort((a, b) => b.used - a.used);
}

/** The reasons that were given most lately, at most so many. */
export function mostUsed(reasons: readonly KnownReason[], most: number): KnownReason[] {
  return reasons.filter(({ used }) => used > 0).sort((a, b) => b.used - a.used).slice(0, most);
}

/** Where a reason stands: the titles from the category down to what is above it. */
export function above(path: string, reasons: readonly KnownReason[]): string {
  const levels = path.split('/');
  return levels
    .slice(0, -1)
    .map((_, place) => levels.slice(0, place + 1).join('/'))
    .map((level) => reasons.find(({ id }) => id === level)?.title ?? spoken(level))
    .join(' / ');
}

/** The reasons with all these words in their titles or paths, the most used first. */
export function search(reasons: readonly KnownReason[], text: string): KnownReason[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return reasons
    .filter(({ id, title }) => words.every((word) => `${above(id, reasons)} ${title} ${id}`.toLowerCase().includes(word)))
    .sort((a, b) => b.used - a.used);
}

/** What a category is called: its title where the plant file gives one. */
export function categoryTitle(path: string, titles: Readonly<Record<string, string>>): string {
  return titles[path] ?? spoken(path);
}
