/** The connection to `/api/live`: opens it, watches for silence, opens it again. Runs in a page or a shared worker. */

import { Columns, Malformed, parseEvent, type LiveEvent } from './columns';

/** After this silence the values are not live any more (the server speaks at least every second), ms. */
export const SILENCE = 3000;
const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 5000;

/** What a viewer is told: an event of the stream, or that the stream is lost. */
export type Signal = LiveEvent | { type: 'lost'; reason: string };

/** The part of EventSource that is used. */
export interface EventSourceLike {
  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void;
  close(): void;
}

/**
 * One stream, kept open. `emit` gets every event that could be applied, and `lost` once each time an attempt
 * ends, so that a listener also learns that the watcher itself is alive.
 */
export class LiveStream {
  readonly columns = new Columns();
  private source: EventSourceLike | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wait = SHORTEST_WAIT;
  private complete = false;
  private closed = false;

  constructor(
    private readonly open: () => EventSourceLike,
    private readonly emit: (signal: Signal) => void,
  ) {
    this.connect();
  }

  /** Whether the columns hold the whole picture as of now. */
  get live(): boolean {
    return this.complete;
  }

  /** Ends it for good. */
  close(): void {
    this.closed = true;
    this.disconnect();
  }

  private connect(): void {
    const source = this.open();
    this.source = source;
    for (const type of ['state', 'delta', 'heartbeat'] as const) {
      source.addEventListener(type, (event) => {
        if (this.source === source) this.receive(type, String(event.data));
      });
    }
    source.addEventListener('error', () => {
      if (this.source === source) this.lose('Shopfloor closed the stream or cannot be reached');
    });
    this.expect();
  }

  private receive(type: LiveEvent['type'], text: string): void {
    try {
      const event = parseEvent(type, text);
      // A delta is worth nothing before the state that it changes; the state always comes first.
      if (event.type !== 'state' && !this.complete) throw new Malformed('the stream did not begin with the state');
      this.columns.apply(event);
      this.complete = true;
      this.wait = SHORTEST_WAIT;
      this.expect();
      this.emit(event);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.lose(error.message);
    }
  }

  /** Starts the silence watch anew. */
  private expect(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.lose(`Shopfloor has been silent for ${SILENCE / 1000} s`);
    }, SILENCE);
  }

  private lose(reason: string): void {
    this.disconnect();
    this.emit({ type: 'lost', reason });
    if (this.closed) return;
    const wait = this.wait * (0.75 + Math.random() / 2);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    this.timer = setTimeout(() => {
      this.connect();
    }, wait);
  }

  private disconnect(): void {
    clearTimeout(this.timer);
    this.complete = false;
    this.source?.close();
    this.source = null;
  }
}
