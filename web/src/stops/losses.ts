/** Losses by reason in two levels: first the categories, then the reasons of one. */

import type { KpiRecord, Loss } from '../api';
import { reasonTitle } from '../kpi/words';
import { categoryTitle } from './tree';

/** By what a Pareto is sorted and drawn. */
export type Measure = 'amount' | 'count';

/** A line: a category, or a reason. */
export interface Level {
  path: string;
  title: string;
  amount: number;
  count: number;
  /** Whether there are reasons below it to be shown. */
  opens: boolean;
}

/** Amounts (seconds, units) and counts by reason. */
export type Amounts = Readonly<Record<string, { amount: number; count: number }>>;

export function stopped(losses: Readonly<Record<string, Loss>>): Amounts {
  return Object.fromEntries(Object.entries(losses).map(([path, { seconds, count }]) => [path, { amount: seconds, count }]));
}

export function scrapped(scraps: Readonly<Record<string, number>>): Amounts {
  return Object.fromEntries(Object.entries(scraps).map(([path, amount]) => [path, { amount, count: 0 }]));
}

/** The categories, or the reasons of one; the largest first. What is not in the tree stands for itself. */
export function levels(amounts: Amounts, category: string | null, titles: Readonly<Record<string, string>>, by: Measure): Level[] {
  const found = new Map<string, Level>();
  for (const [path, { amount, count }] of Object.entries(amounts)) {
    if (amount === 0 && count === 0) continue;
    const first = path.split('/')[0] ?? '';
    if (category !== null && first !== category) continue;
    const key = category === null ? first : path;
    const inTree = path.includes('/');
    const made = found.get(key) ?? {
      path: key,
      title: category === null && inTree ? categoryTitle(first, titles) : reasonTitle(key, titles),
      amount: 0, count: 0, opens: false,
    };
    made.amount += amount;
    made.count += count;
    made.opens ||= category === null && inTree;
    found.set(key, made);
  }
  const other: Measure = by === 'amount' ? 'count' : 'amount';
  return [...found.values()].sort((a, b) => b[by] - a[by] || b[other] - a[other]);
}

/** The sum of lines. */
export function sum(lines: readonly Pick<Level, Measure>[], by: Measure): number {
  return lines.reduce((total, line) => total + line[by], 0);
}

/** What several windows without an overlap lose together. */
export function together(records: readonly KpiRecord[]): Pick<KpiRecord, 'losses' | 'scrap_by_reason'> {
  const losses: Record<string, Loss> = {};
  const scraps: Record<string, number> = {};
  for (const record of records) {
    for (const [path, { seconds, count }] of Object.entries(record.losses)) {
      const before = losses[path] ?? { seconds: 0, count: 0 };
      losses[path] = { seconds: before.seconds + seconds, count: before.count + count };
    }
    for (const [path, units] of Object.entries(record.scrap_by_reason)) scraps[path] = (scraps[path] ?? 0) + units;
  }
  return { losses, scrap_by_reason: scraps };
}
