/** The newest value of every tag for the pages: redrawn at most once an animation frame, ages once a second. */

import { address } from '../api';
import type { Value } from '../value';
import { Columns } from './columns';
import type { HubMessage } from './hub';
import type { Signal } from './stream';
import { Viewer, type WorkerLike } from './viewer';

/** `connecting` only until the first answer; `lost`: what is shown is the last that was heard. */
export type Phase = 'connecting' | 'live' | 'lost';

/** A tag's newest sample. */
export interface Reading {
  tag: string;
  unit: string;
  value: Value;
  /** ms UTC; null where nothing was received yet. */
  time: number | null;
  quality: number;
}

type Follower = (indices: readonly number[] | null) => void;

class Live {
  phase = $state<Phase>('connecting');
  /** Why the stream is lost; for the engineer. */
  reason = $state('');
  /** The server's clock at the last that was heard before the stream was lost, ms UTC; 0 when nothing was. */
  lostAt = $state(0);
  /** Grows when values changed: whoever shows values reads it. */
  frame = $state(0);
  /** Grows when tags came or went. */
  roster = $state(0);
  /** Grows when the stream begins anew: the server may be another one. */
  epoch = $state(0);
  /** The server's clock in whole seconds, ms UTC: whoever shows ages reads it. */
  clock = $state(0);

  readonly columns = new Columns();
  private heardAt = 0;
  private drawing = false;
  private readonly followers = new Set<Follower>();

  /** Opens the stream and the clock; called once by the page. */
  start(): void {
    const viewer = new Viewer(
      { address: address('api/live'), worker: sharedWorker(), source: (url) => new EventSource(url) },
      (signal) => {
        this.take(signal);
      },
    );
    setInterval(() => {
      if (this.heardAt > 0) this.clock = Math.floor(this.now() / 1000) * 1000;
    }, 1000);
    addEventListener('pagehide', () => {
      viewer.close();
    });
    // A page from the back-forward cache has no stream any more and old values: start afresh.
    addEventListener('pageshow', (event) => {
      if (event.persisted) location.reload();
    });
  }

  /** The server's clock, ms UTC, by its last word and this machine's monotonic clock; 0 before the first word. */
  now(): number {
    return this.heardAt === 0 ? 0 : this.columns.now + (performance.now() - this.heardAt);
  }

  /** A tag's newest sample; undefined for a tag that the stream does not carry. */
  reading(tag: string): Reading | undefined {
    void this.frame;
    const index = this.columns.index(tag);
    return index === undefined ? undefined : this.at(index);
  }

  /** The newest sample at a position of the columns. */
  at(index: number): Reading {
    const { names, units, values, times, qualities } = this.columns;
    return {
      tag: names[index] ?? '',
      unit: units[index] ?? '',
      value: values[index] ?? null,
      time: times[index] ?? null,
      quality: qualities[index] ?? 0,
    };
  }

  /** Calls back at every event with the positions that changed, null for all; returns how to stop that. */
  follow(follower: Follower): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }

  private take(signal: Signal): void {
    if (signal.type === 'lost') {
      this.lostAt = this.columns.now;
      this.phase = 'lost';
      this.reason = signal.reason;
      return;
    }
    this.columns.apply(signal);
    this.heardAt = performance.now();
    if (this.clock === 0) this.clock = signal.now;
    this.phase = 'live';
    if (signal.type === 'heartbeat') return;
    if (signal.type === 'state') this.epoch += 1;
    if (signal.type === 'state' || signal.names !== undefined) this.roster += 1;
    for (const follower of this.followers) follower(signal.type === 'state' ? null : signal.tags);
    this.draw();
  }

  private draw(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.frame += 1;
    });
  }
}

function sharedWorker(): (() => WorkerLike) | null {
  if (typeof SharedWorker === 'undefined') return null;
  return () => {
    const worker = new SharedWorker(new URL('./shared-worker.ts', import.meta.url), { type: 'module', name: 'shopfloor' });
    return {
      port: {
        postMessage: (message) => {
          worker.port.postMessage(message);
        },
        addEventListener: (type, listener) => {
          worker.port.addEventListener(type, (event) => {
            listener({ data: event.data as HubMessage });
          });
        },
        start: () => {
          worker.port.start();
        },
        close: () => {
          worker.port.close();
        },
      },
      addEventListener: (type, listener) => {
        worker.addEventListener(type, listener);
      },
    };
  };
}

export const live = new Live();
