/** The connection to `/api/hold`: open while a page with buttons is shown, one for all of its buttons. */

import type { HoldAnswer, HoldRequest } from './hold';

const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;

/** The part of WebSocket that is used. */
export interface WebSocketLike {
  readyState: number;
  send(text: string): void;
  close(): void;
  addEventListener(type: 'open' | 'close' | 'message', listener: (event: { data?: unknown }) => void): void;
}

/** What a button is told. */
export interface HoldListener {
  answer(answer: HoldAnswer): void;
  /** The connection is gone; whatever was pressed is released by the server. */
  closed(): void;
}

const OPEN = 1;

/** Keeps the connection up; a press is only possible while it is. */
export class HoldSocket {
  private socket: WebSocketLike | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wait = FIRST_WAIT;
  private ended = false;
  private readonly listeners = new Set<HoldListener>();

  /** `changed` is told whenever the connection comes or goes. */
  constructor(
    private readonly open: () => WebSocketLike,
    private readonly changed: (connected: boolean) => void,
  ) {
    this.connect();
  }

  /** Hears the answers from now on; returns how to stop that. */
  listen(listener: HoldListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Sends if there is a connection; false when there is none, so that nothing is sent late. */
  send(request: HoldRequest): boolean {
    if (this.socket?.readyState !== OPEN) return false;
    this.socket.send(JSON.stringify(request));
    return true;
  }

  /** Ends it for good; the server releases what is pressed. */
  close(): void {
    this.ended = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  private connect(): void {
    const socket = this.open();
    this.socket = socket;
    socket.addEventListener('open', () => {
      this.wait = FIRST_WAIT;
      this.changed(true);
    });
    socket.addEventListener('message', (event) => {
      const answer = parse(event.data);
      if (answer !== null) for (const listener of this.listeners) listener.answer(answer);
    });
    socket.addEventListener('close', () => {
      this.changed(false);
      for (const listener of this.listeners) listener.closed();
      if (this.ended) return;
      this.timer = setTimeout(() => {
        this.connect();
      }, this.wait);
      this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    });
  }
}

const TYPES = new Set(['outcome', 'renewed', 'refused', 'gone', 'error']);

/** An answer, or null for what is none: a button then waits for its lease to end, which is safe. */
function parse(data: unknown): HoldAnswer | null {
  try {
    const answer: unknown = JSON.parse(String(data));
    const known = typeof answer === 'object' && answer !== null && 'type' in answer && TYPES.has(String(answer.type));
    return known ? (answer as HoldAnswer) : null;
  } catch {
    return null;
  }
}
