/** A page's view of the stream: through the shared worker where there is one, else by a stream of its own. */

import type { HubMessage, PageMessage } from './hub';
import { LiveStream, SILENCE, type EventSourceLike, type Signal } from './stream';

/** A worker that said nothing for this long is gone (it speaks at least every 5 s while it retries), ms. */
const DEAD = 10_000;
const CHECK = 500;

/** The part of SharedWorker that is used. */
export interface WorkerLike {
  port: {
    postMessage(message: PageMessage): void;
    addEventListener(type: 'message', listener: (event: { data: HubMessage }) => void): void;
    start(): void;
    close(): void;
  };
  addEventListener(type: 'error', listener: () => void): void;
}

/** How the viewer reaches the stream. */
export interface Reach {
  address: string;
  /** Null where the browser has no shared workers. Throws where they are forbidden. */
  worker: (() => WorkerLike) | null;
  source: (address: string) => EventSourceLike;
}

/** Follows the stream; `emit` gets its events, and `lost` as soon as the page cannot rely on them. */
export class Viewer {
  private worker: WorkerLike | null = null;
  private stream: LiveStream | null = null;
  private heard = performance.now();
  private checked = performance.now();
  private silent = false;
  private readonly watch: ReturnType<typeof setInterval>;

  constructor(
    private readonly reach: Reach,
    private readonly emit: (signal: Signal) => void,
  ) {
    this.watch = setInterval(() => {
      this.check();
    }, CHECK);
    if (!this.share()) this.alone();
  }

  /** Ends it for good. */
  close(): void {
    clearInterval(this.watch);
    this.drop();
    this.stream?.close();
  }

  private share(): boolean {
    if (this.reach.worker === null) return false;
    try {
      const worker = this.reach.worker();
      this.worker = worker;
      worker.port.addEventListener('message', ({ data }) => {
        if (this.worker === worker) this.hear(data);
      });
      worker.addEventListener('error', () => {
        if (this.worker === worker) this.alone();
      });
      worker.port.start();
      worker.port.postMessage({ type: 'join', address: this.reach.address });
      return true;
    } catch {
      return false;
    }
  }

  private alone(): void {
    this.drop();
    this.stream = new LiveStream(
      () => this.reach.source(this.reach.address),
      (signal) => {
        this.hear(signal);
      },
    );
  }

  private drop(): void {
    this.worker?.port.postMessage({ type: 'leave' });
    this.worker?.port.close();
    this.worker = null;
  }

  private hear(message: HubMessage): void {
    this.heard = performance.now();
    if (message.type === 'hello') return;
    this.silent = message.type === 'lost';
    this.emit(message);
  }

  /** The page's own watch: also a worker that died or hangs must not leave old values looking live. */
  private check(): void {
    const now = performance.now();
    const asleep = now - this.checked > SILENCE;
    this.checked = now;
    if (asleep) this.heard = Math.max(this.heard, now - SILENCE);
    const quiet = now - this.heard;
    if (quiet > SILENCE + CHECK && !this.silent) {
      this.silent = true;
      this.emit({ type: 'lost', reason: `nothing was heard for ${Math.round(quiet / 1000)} s` });
    }
    if (quiet > DEAD && this.worker !== null) {
      this.heard = now;
      this.alone();
    }
  }
}
