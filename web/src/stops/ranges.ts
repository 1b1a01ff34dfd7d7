/** The windows of a machine of which stops and losses can be looked at. */

import type { KpiRecord, MachineFigures, Span } from '../api';
import { siteDay, siteSpan } from '../kpi/clock';
import type { WindowKind } from './api';
import { together } from './losses';

/** A window, closed or running. */
export interface Range extends Span {
  label: string;
  running: boolean;
  losses: KpiRecord['losses'];
  scrap_by_reason: KpiRecord['scrap_by_reason'];
}

/** What can be chosen, the oldest first. `shifts` are the closed shifts, for a day that is not over. */
export function ranges(kind: WindowKind, figures: MachineFigures, shifts: readonly KpiRecord[], zone: string): Range[] {
  const { live } = figures;
  const closed = figures.records.map((record) => range(record, zone));
  if (live?.window === kind) return [...closed.filter(({ start }) => start !== live.start), range(live, zone)];
  if (kind === 'day' && live !== null && figures.records.every(({ day }) => day !== live.day)) {
    const parts = [...shifts.filter(({ day, start }) => day === live.day && start !== live.start), live];
    const start = Math.min(...parts.map((part) => part.start));
    return [...closed, { ...range({ ...live, window: 'day' }, zone), ...together(parts), start, end: live.end }];
  }
  return closed;
}

function range(record: KpiRecord, zone: string): Range {
  const { start, end, losses, scrap_by_reason, window, shift, day } = record;
  const name = { hour: '', shift: `${shift}, `, day: '' }[window];
  const date = window === 'hour' ? siteDay(start, zone) : siteDay(Date.parse(`${day}T12:00:00Z`), 'UTC');
  const times = window === 'day' ? '' : `, ${siteSpan(start, end, zone)}`;
  return { start, end, losses, scrap_by_reason, label: `${name}${date}${times}`, running: record.until !== undefined };
}
