/** The newest value of every tag as columns, kept up to date by the events of `/api/live`. */

import type { Value } from '../value';

/** The whole picture: columns of equal length, a tag's position is its index. */
export interface StateEvent {
  type: 'state';
  revision: number;
  /** The server's clock when it was sent, ms UTC. */
  now: number;
  names: string[];
  units: string[];
  values: Value[];
  /** ms UTC; null where nothing was received yet. */
  times: (number | null)[];
  qualities: number[];
}

/** What changed: `tags` are indices, the other columns go with them; new names are appended first. */
export interface DeltaEvent {
  type: 'delta';
  revision: number;
  now: number;
  names?: string[];
  units?: string[];
  tags: number[];
  values: Value[];
  times: (number | null)[];
  qualities: number[];
}

/** Nothing changed, but the server is there. */
export interface HeartbeatEvent {
  type: 'heartbeat';
  revision: number;
  now: number;
}

export type LiveEvent = StateEvent | DeltaEvent | HeartbeatEvent;

/** The stream's text is not what docs/api.md promises. */
export class Malformed extends Error {}

function sameLength(...columns: unknown[]): boolean {
  const [first] = columns;
  return columns.every((column) => Array.isArray(column) && column.length === (first as unknown[]).length);
}

/** Reads one event of the stream. Throws Malformed for anything that could not be applied as a whole. */
export function parseEvent(type: LiveEvent['type'], text: string): LiveEvent {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Malformed(`the ${type} event is not JSON`);
  }
  if (typeof data !== 'object' || data === null) throw new Malformed(`the ${type} event is not an object`);
  const event = { ...data, type } as LiveEvent;
  if (typeof event.now !== 'number' || typeof event.revision !== 'number') {
    throw new Malformed(`the ${type} event has no time or revision`);
  }
  if (event.type === 'state' && !sameLength(event.names, event.units, event.values, event.times, event.qualities)) {
    throw new Malformed('the columns of the state differ in length');
  }
  if (event.type === 'delta') {
    if (!sameLength(event.tags, event.values, event.times, event.qualities)) {
      throw new Malformed('the columns of a delta differ in length');
    }
    if (event.names !== undefined && !sameLength(event.names, event.units)) {
      throw new Malformed('a delta names new tags without their units');
    }
  }
  return event;
}

/** Every tag's name, unit, newest value, its time and quality. */
export class Columns {
  names: string[] = [];
  units: string[] = [];
  values: Value[] = [];
  times: (number | null)[] = [];
  qualities: number[] = [];
  revision = 0;
  /** The server's clock at the newest event, ms UTC. */
  now = 0;
  private positions = new Map<string, number>();

  /** A tag's position in the columns. */
  index(tag: string): number | undefined {
    return this.positions.get(tag);
  }

  /** Takes an event in. Throws Malformed, with nothing changed, when a delta speaks of a tag that has no name. */
  apply(event: LiveEvent): void {
    if (event.type === 'state') this.replace(event);
    if (event.type === 'delta') this.update(event);
    this.revision = event.revision;
    this.now = event.now;
  }

  /** The picture as one state event, for a viewer that comes later. */
  snapshot(): StateEvent {
    const { revision, now, names, units, values, times, qualities } = this;
    return { type: 'state', revision, now, names, units, values, times, qualities };
  }

  private replace(state: StateEvent): void {
    this.names = [...state.names];
    this.units = [...state.units];
    this.values = [...state.values];
    this.times = [...state.times];
    this.qualities = [...state.qualities];
    this.positions = new Map(this.names.map((name, index) => [name, index]));
  }

  private update(delta: DeltaEvent): void {
    const known = this.names.length + (delta.names?.length ?? 0);
    if (delta.tags.some((tag) => !Number.isInteger(tag) || tag < 0 || tag >= known)) {
      throw new Malformed('a delta speaks of a tag without a name');
    }
    delta.names?.forEach((name, i) => {
      this.positions.set(name, this.names.length);
      this.names.push(name);
      this.units.push(delta.units?.[i] ?? '');
      this.values.push(null);
      this.times.push(null);
      this.qualities.push(32);
    });
    delta.tags.forEach((tag, i) => {
      this.values[tag] = delta.values[i] ?? null;
      this.times[tag] = delta.times[i] ?? null;
      this.qualities[tag] = delta.qualities[i] ?? 0;
    });
  }
}
