/** The HTTP API as the console uses it (docs/api.md); every failure is a Problem with words for people. */

import type { Value } from './value';

export interface PlantInfo {
  site: string;
  timezone: string;
  version: string;
  started: number;
  now: number;
  historian: boolean;
}

export interface Me {
  name: string;
  role: string;
}

export interface TagRow {
  tag: string;
  source: string;
  unit: string;
  description: string;
  data_type: string;
  value: Value;
  time: number | null;
  quality: number;
  writable: boolean;
}

/** What may be written to a tag, and whether by you. */
export interface Permission {
  tag: string;
  role: string;
  range: [number, number] | null;
  momentary: boolean;
  /** How long a press lives without renewal, ms. */
  lease: number;
  expires: number;
  allowed: boolean;
  held_by: string | null;
}

export interface Machine {
  id: string;
  title: string;
  line: string | null;
  ideal_cycle: number | null;
  state: string | null;
  good: string | null;
  scrap: string | null;
  tags: string[];
  /** What is wished for, by figure. */
  targets: Record<string, number>;
  commands: Permission[];
  live: LiveFigures | null;
}

/** What is wished for of a figure, and whether it is so; null while the figure has no meaning. */
export interface Target {
  value: number;
  met: boolean | null;
}

/** The main figures of a running shift; ratios are fractions, null where they have no meaning. */
export interface LiveFigures {
  state: string | null;
  oee: number | null;
  availability: number | null;
  performance: number | null;
  quality: number | null;
  good: number | null;
  scrap: number | null;
  coverage: number | null;
  /** How many stops need a reason. */
  unexplained: number | null;
  until: number | null;
  target: Record<string, Target> | null;
}

export interface Loss {
  count: number;
  seconds: number;
}

/** All figures of a machine or a line in one window (docs/specs/kpi.md); `until` only of a running one. */
export interface WindowRecord {
  window: 'hour' | 'shift' | 'day';
  start: number;
  end: number;
  day: string;
  shift: string;
  formula: string;
  oee: number | null;
  oee_low: number | null;
  oee_high: number | null;
  availability: number | null;
  performance: number | null;
  quality: number | null;
  mtbf: number | null;
  mttr: number | null;
  coverage: number | null;
  /** Production of which nothing is known of the counter: left out of performance. Older records do not say. */
  uncounted_seconds?: number;
  /** By class of time. */
  seconds: Record<string, number>;
  good: number;
  scrap: number;
  minor_stops: number;
  incidents: number;
  losses: Record<string, Loss>;
  scrap_by_reason: Record<string, number>;
  target?: Record<string, Target>;
  /** Of a line: which machine it stood for. */
  lost_to?: Record<string, Loss>;
  /** Of a running line: the machine that it stands for just now, and what each machine does. */
  stands_for?: string | null;
  states?: Record<string, string>;
  state?: string;
  until?: number;
  revision?: number;
  was?: Record<string, number | null>;
  why?: string;
  calendar?: string;
  unknown_states?: Record<string, number>;
  unexplained?: number;
  without_ideal?: number;
  from_the_future?: number;
}

/** Those of a machine. */
export interface KpiRecord extends WindowRecord {
  machine: string;
}

/** A machine's closed windows, and its running shift. */
export interface MachineFigures {
  machine: string;
  now: number;
  /** Titles of reasons by their paths. */
  reasons: Record<string, string>;
  live: KpiRecord | null;
  records: KpiRecord[];
  truncated: boolean;
}

/** As what each moment counts: columns of equal length, the last holds to `until`. */
export interface Timeline {
  from: number;
  to: number;
  until: number;
  state: string;
  since: number | null;
  starts: number[];
  classes: string[];
  reasons: string[];
}

/** A line, or an area or the site, which are sums of lines. */
export interface Whole {
  level: 'line' | 'area' | 'site';
  id: string;
  title: string;
  area: string | null;
  policy: 'sum' | 'bottleneck' | 'first_down';
  machines: string[];
  lines: string[];
  targets: Record<string, number>;
}

/** With its running shift. */
export interface Line extends Whole {
  live: WindowRecord | null;
}

/** The shifts of a day, and all of it once that is closed. */
export interface DayWindows {
  shifts: WindowRecord[];
  day: WindowRecord | null;
}

/** A production day of everything that has figures. */
export interface Report {
  day: string;
  today: string;
  now: number;
  lines: (Whole & DayWindows)[];
  machines: ({ id: string; title: string; line: string | null } & DayWindows)[];
}

export type ComponentState = 'starting' | 'running' | 'waiting' | 'paused' | 'misconfigured' | 'failed' | 'stopped';

export interface Component {
  name: string;
  kind: 'source' | 'processor' | 'sink' | 'historian';
  type: string;
  state: ComponentState;
  since: number;
  required: boolean;
  last_error: string;
  last_error_at: number | null;
  restarts: number;
  samples: number;
  lag_entries: number;
  lag_seconds: number;
  /** Values for it that were dropped to make room, since it entered this state. */
  dropped?: number;
}

export interface Journal {
  entries: number;
  samples: number;
  size: number;
  oldest: number | null;
  keep: number;
  damaged: number;
  /** Whether sources are held back until there is room. */
  full?: boolean;
  /** Measurements that were taken out since the start because there was no room. */
  thinned?: number;
  /** Values that somebody did not get, since the start, because the oldest entries were dropped to make room. */
  dropped?: number;
  /** What was done when the file was damaged, else empty. */
  salvaged?: string;
}

export interface Components {
  now: number;
  components: Component[];
  journal: Journal;
}

/** Samples of one batch that a sink refused for one reason; `samples` are the first of `count`. */
export interface DeadLetter {
  id: number;
  reader: string;
  source: string;
  time: number;
  reason: string;
  count: number;
  samples: { tag: string; time: number; value: Value; quality: number }[];
}

export interface LedgerRow {
  source: string;
  reader: string;
  outcome: string;
  reason: string;
  samples: number;
  first: number | null;
  last: number | null;
}

export interface AuditRecord {
  number: number;
  time: number;
  event: string;
  who: string;
  role: string;
  tag: string;
  value: Value;
  id: string;
  detail: string;
  hash: string;
}

export interface AuditCheck {
  records: number;
  intact: boolean;
  broken: number | null;
  detail: string;
}

export type Aggregate = 'avg' | 'min' | 'max' | 'twa' | 'last';

/** One tag's values as columns of equal length, in time order. */
export interface History {
  tag: string;
  unit: string;
  times: number[];
  values: Value[];
  qualities: number[];
  truncated: boolean;
}

export interface CommandOutcome {
  id: string;
  tag: string;
  value: Value;
  /** true: written and read back; false: not written; null: nobody knows, a person has to look. */
  done: boolean | null;
  detail: string;
}

/** Why a request gave no answer: `message` for the shift lead, `detail` for the engineer. */
export class Problem extends Error {
  constructor(
    title: string,
    readonly detail: string,
    /** The HTTP status; 0 when no answer came at all. */
    readonly status: number,
  ) {
    super(title);
  }
}

const PATIENCE = 15_000;

/** An address below the console's own, whatever path a proxy put before it. */
export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

export async function ask<T>(path: string, options: RequestInit = {}): Promise<T> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(address(path), { signal: AbortSignal.timeout(PATIENCE), cache: 'no-store', ...options });
    text = await response.text();
  } catch (error) {
    if (options.signal?.aborted === true) throw error;
    throw new Problem('Shopfloor cannot be reached', `no answer to ${path}: ${String(error)}`, 0);
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Problem('Shopfloor gave an unreadable answer', `${path}: ${response.status}, not JSON`, response.status);
  }
  if (response.ok) return body as T;
  const { title, detail } = (body ?? {}) as { title?: unknown; detail?: unknown };
  throw new Problem(
    typeof title === 'string' && title !== '' ? title : `Shopfloor refused the request (${response.status})`,
    typeof detail === 'string' ? detail : path,
    response.status,
  );
}

export function post<T>(path: string, body?: unknown): Promise<T> {
  if (body === undefined) return ask(path, { method: 'POST' });
  const headers = { 'Content-Type': 'application/json' };
  return ask(path, { method: 'POST', headers, body: JSON.stringify(body) });
}

export const getPlant = () => ask<PlantInfo>('api/plant');
export const getMe = () => ask<Me>('api/me');
export const getTags = async () => (await ask<{ tags: TagRow[] }>('api/tags')).tags;
export const getMachines = async () => (await ask<{ machines: Machine[] }>('api/machines')).machines;
export const getLines = async () => (await ask<{ lines: Line[] }>('api/lines')).lines;
export const getComponents = () => ask<Components>('api/components');
export const getLedger = async () => (await ask<{ rows: LedgerRow[] }>('api/ledger')).rows;
export const verifyAudit = () => ask<AuditCheck>('api/audit/verify');

/** The newest audit records first; `before` goes on behind a record's number. */
export async function getAudit(limit: number, before?: number): Promise<AuditRecord[]> {
  const query = new URLSearchParams({ limit: String(limit) });
  if (before !== undefined) query.set('before', String(before));
  return (await ask<{ records: AuditRecord[] }>(`api/audit?${query.toString()}`)).records;
}

export const getDeadLetters = async () => (await ask<{ letters: DeadLetter[] }>('api/dead-letters')).letters;

/** Offers dead letters again or throws them away; how many there were. */
export async function decide(action: 'retry' | 'drop', ids: readonly number[]): Promise<number> {
  return (await post<{ letters: number }>(`api/dead-letters/${action}`, { ids })).letters;
}

/** Restarts, pauses or resumes a component. */
export function act(name: string, action: 'restart' | 'pause' | 'resume'): Promise<Component> {
  return post(`api/components/${encodeURIComponent(name)}/${action}`);
}

/** Writes a value, at most once for an id. */
export function command(tag: string, value: Value, id: string): Promise<CommandOutcome> {
  return post('api/commands', { tag, value, id });
}

export const machinePath = (machine: string) => `api/machines/${encodeURIComponent(machine)}`;

/** The running shift of a machine, and its hours that are closed. */
export const getFigures = (machine: string, signal: AbortSignal) => ask<MachineFigures>(`${machinePath(machine)}/kpi`, { signal });
export const getTimeline = (machine: string, signal: AbortSignal, span?: Span) => ask<Timeline>(`${machinePath(machine)}/timeline${spanQuery(span)}`, { signal });

/** Times in ms UTC. */
export interface Span {
  start: number;
  end: number;
}

/** `?from=…&to=…`, or nothing. */
export function spanQuery(span: Span | undefined): string {
  if (span === undefined) return '';
  const text = (time: number): string => new Date(time).toISOString();
  return `?${new URLSearchParams({ from: text(span.start), to: text(span.end) }).toString()}`;
}

/** Where a day's report is: today's by default. */
export const reportPath = (day: string, form: '' | '.csv' = '') => `api/report${form}${day === '' ? '' : `?day=${encodeURIComponent(day)}`}`;
export const getReport = (day: string, signal: AbortSignal) => ask<Report>(reportPath(day), { signal });

/** What of a tag's past is wanted; times in ms UTC, `every` in ms (left out: raw samples). */
export interface HistoryQuery {
  tag: string;
  from: number;
  to: number;
  every?: number;
  aggregate?: Aggregate;
  limit?: number;
}

/** A tag's past, raw or one value a bucket. */
export function getHistory(query: HistoryQuery, signal: AbortSignal): Promise<History> {
  const parameters = new URLSearchParams({
    tag: query.tag,
    from: new Date(query.from).toISOString(),
    to: new Date(query.to).toISOString(),
  });
  if (query.every !== undefined) parameters.set('every', `${query.every}ms`);
  if (query.aggregate !== undefined) parameters.set('aggregate', query.aggregate);
  if (query.limit !== undefined) parameters.set('limit', String(query.limit));
  return ask(`api/history?${parameters.toString()}`, { signal });
}
