/** The loss ledger as one account for every way from a source to a reader (docs/specs/ledger.md): does it balance? */

import type { LedgerRow } from './api';

/** Outcomes in the order in which they are shown; together they are what the reader was owed. */
export const OUTCOMES = ['delivered', 'filtered', 'deduplicated', 'rejected', 'dropped', 'waiting'] as const;

export type LedgerOutcome = (typeof OUTCOMES)[number];

/** One source and one reader. */
export interface Account {
  source: string;
  reader: string;
  /** What the reader was owed: received, less what was received before there was this reader. */
  received: number;
  counts: Record<LedgerOutcome, number>;
  /** Received less everything else: zero when the account balances. */
  missing: number;
  /** Why some were not delivered, with the interval. */
  losses: LedgerRow[];
}

/** What a source itself says it lost before Shopfloor got it (the queue of its server overflowed). */
export interface Upstream {
  source: string;
  samples: number;
}

/** Outcomes that have a reason. */
const LOSSES: ReadonlySet<LedgerOutcome> = new Set<LedgerOutcome>(['deduplicated', 'rejected', 'dropped']);
const SAME: Readonly<Record<string, LedgerOutcome>> = { pending: 'waiting' };

function known(outcome: string): LedgerOutcome | undefined {
  return OUTCOMES.find((each) => each === outcome) ?? SAME[outcome];
}

/** Adds the rows up. A word that is not known here counts to no outcome, so the account then does not balance. */
export function accounts(rows: readonly LedgerRow[]): Account[] {
  const received = new Map<string, number>();
  const before = new Map<string, number>();
  const found = new Map<string, Account>();
  for (const row of rows) {
    const key = JSON.stringify([row.source, row.reader]);
    if (row.reader === '') {
      if (row.outcome === 'received') received.set(row.source, row.samples);
      continue;
    }
    const account = found.get(key) ?? opened(row);
    found.set(key, account);
    const outcome = known(row.outcome);
    // Some servers say per reader what it was owed, others once per source.
    if (row.outcome === 'received') account.received += row.samples;
    if (row.outcome === 'base') before.set(key, row.samples);
    if (outcome === undefined) continue;
    account.counts[outcome] += row.samples;
    if (LOSSES.has(outcome) && row.samples > 0) account.losses.push(row);
  }
  for (const [key, account] of found) {
    account.received += (received.get(account.source) ?? 0) - (before.get(key) ?? 0);
    account.missing = account.received - Object.values(account.counts).reduce((sum, count) => sum + count, 0);
  }
  return [...found.values()].sort((a, b) => a.source.localeCompare(b.source) || a.reader.localeCompare(b.reader));
}

/** Losses of one way with one reason as one line, with the whole time of them; the biggest first. */
export function gathered(losses: readonly LedgerRow[]): LedgerRow[] {
  const found = new Map<string, LedgerRow>();
  for (const row of losses) {
    const key = JSON.stringify([row.source, row.reader, row.outcome, row.reason]);
    const so = found.get(key);
    found.set(key, so === undefined ? row : {
      ...so,
      samples: so.samples + row.samples,
      first: so.first === null || row.first === null ? (so.first ?? row.first) : Math.min(so.first, row.first),
      last: so.last === null || row.last === null ? (so.last ?? row.last) : Math.max(so.last, row.last),
    });
  }
  return [...found.values()].sort((a, b) => b.samples - a.samples);
}

/** What sources lost before Shopfloor. */
export function upstream(rows: readonly LedgerRow[]): Upstream[] {
  return rows
    .filter((row) => row.reader === '' && row.outcome === 'lost before us' && row.samples > 0)
    .map(({ source, samples }) => ({ source, samples }));
}

function opened({ source, reader }: LedgerRow): Account {
  const counts = { delivered: 0, filtered: 0, deduplicated: 0, rejected: 0, dropped: 0, waiting: 0 };
  return { source, reader, received: 0, counts, missing: 0, losses: [] };
}
