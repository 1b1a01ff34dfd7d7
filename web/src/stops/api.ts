/** The part of the HTTP API that tells of stops and of what happened (docs/api.md). */

import { ask, machinePath, post, spanQuery, type KpiRecord, type MachineFigures, type Span } from '../api';
import type { Value } from '../value';

/** A part of a stop for which one reason counts; `by` is empty where it is the machine's own. */
export interface StopPart {
  reason: string;
  start: number;
  seconds: number;
  by: string;
  comment: string;
}

export interface Stop {
  start: number;
  /** null while it lasts. */
  end: number | null;
  class: 'minor_stop' | 'unplanned_stop';
  state: 'idle' | 'down';
  /** Whether it needs a reason. */
  unexplained: boolean;
  reasons: StopPart[];
}

/** What somebody said; `to` null: to the end of the stop. */
export interface Edit {
  id: string;
  time: number;
  from: number;
  to: number | null;
  reason: string;
  by: string;
  comment: string;
  undone: { time: number; by: string } | null;
}

export interface Stops {
  now: number;
  stops: Stop[];
  /** The newest first. */
  edits: Edit[];
  truncated: boolean;
}

export interface KnownReason {
  id: string;
  title: string;
  /** Whether it needs a comment. */
  comment: boolean;
  /** How often it was given lately. */
  used: number;
}

export interface NewReason {
  from: number;
  to: number | null;
  reason: string;
  comment: string;
}

export type WindowKind = KpiRecord['window'];

export type Happened =
  | ({ kind: 'stop'; time: number; machine: string } & Stop)
  | ({ kind: 'edit'; machine: string } & Edit)
  | {
      kind: 'correction'; time: number; machine: string; window: WindowKind; shift: string; start: number; end: number;
      revision: number; was: Record<string, number | null>; is: Record<string, number | null>; why: string;
    }
  | { kind: 'loss'; time: number; source: string; machines: string[]; until: number | null; complete: boolean }
  | { kind: 'unknown_state'; time: number; machine: string; tag: string; value: Value };

export type Kind = Happened['kind'];

export interface Events {
  now: number;
  from: number;
  /** Titles of reasons by their paths. */
  reasons: Record<string, string>;
  events: Happened[];
  /** The `to` that goes on behind them; null at the end. */
  next: string | null;
}

export const getStops = (machine: string, span: Span, signal: AbortSignal) => ask<Stops>(`${machinePath(machine)}/stops${spanQuery(span)}`, { signal });
export const getReasons = async (machine: string, signal: AbortSignal) => (await ask<{ reasons: KnownReason[] }>(`${machinePath(machine)}/reasons`, { signal })).reasons;
export const giveReason = (machine: string, reason: NewReason) => post<{ id: string }>(`${machinePath(machine)}/reasons`, reason);
export const takeBack = (machine: string, id: string) => post<{ id: string }>(`${machinePath(machine)}/reasons/undo`, { id });

/** The closed windows of a kind, the oldest first, and the running shift. */
export function getWindows(machine: string, window: WindowKind, signal: AbortSignal): Promise<MachineFigures> {
  const query = new URLSearchParams({ window, ...(window === 'hour' ? { from: '-24h' } : {}) });
  return ask(`${machinePath(machine)}/kpi?${query.toString()}`, { signal });
}

/** What happened before `to` (now when it is empty) and not before `from`; of one machine and one kind where these are not empty. */
export function getEvents(query: { from: string; to: string; machine: string; kind: string }, signal: AbortSignal): Promise<Events> {
  const said = Object.entries(query).filter(([, value]) => value !== '');
  return ask(`api/events?${new URLSearchParams(said).toString()}`, { signal });
}
