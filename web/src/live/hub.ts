/** One stream for all pages of a browser: HTTP/1.1 gives a host six connections, the seventh page would get none. */

import { LiveStream, type EventSourceLike, type Signal } from './stream';

/** From the hub to a page: `hello` says that the hub is there, before anything else. */
export type HubMessage = { type: 'hello' } | Signal;
/** From a page to the hub. */
export type PageMessage = { type: 'join'; address: string } | { type: 'leave' };

/** The part of MessagePort that is used. */
export interface PortLike {
  postMessage(message: HubMessage): void;
  addEventListener(type: 'message' | 'close', listener: (event: { data?: PageMessage }) => void): void;
  start(): void;
}

/** Passes the stream on to every page that joined; closes it when the last one left. */
export class Hub {
  private readonly ports = new Set<PortLike>();
  private stream: LiveStream | null = null;

  constructor(private readonly open: (address: string) => EventSourceLike) {}

  /** A page's port, as the worker's `connect` event brings it. */
  connect(port: PortLike): void {
    port.addEventListener('message', (event) => {
      if (event.data?.type === 'join') this.join(port, event.data.address);
      if (event.data?.type === 'leave') this.leave(port);
    });
    // Browsers that know this event tell when a page is gone without a word; in others the port costs a post each time.
    port.addEventListener('close', () => {
      this.leave(port);
    });
    port.start();
  }

  private join(port: PortLike, address: string): void {
    this.ports.add(port);
    port.postMessage({ type: 'hello' });
    this.stream ??= new LiveStream(
      () => this.open(address),
      (signal) => {
        for (const each of this.ports) each.postMessage(signal);
      },
    );
    if (this.stream.live) port.postMessage(this.stream.columns.snapshot());
  }

  private leave(port: PortLike): void {
    this.ports.delete(port);
    if (this.ports.size > 0) return;
    this.stream?.close();
    this.stream = null;
  }
}
