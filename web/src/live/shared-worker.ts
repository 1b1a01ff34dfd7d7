/** The shared worker's own file: every port that connects goes to the hub. */

import { Hub, type PortLike } from './hub';

const hub = new Hub((address) => new EventSource(address));

self.addEventListener('connect', (event) => {
  const [port] = (event as MessageEvent).ports;
  if (port) hub.connect(port as unknown as PortLike);
});
