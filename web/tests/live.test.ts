import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Columns, Malformed, parseEvent, type DeltaEvent, type StateEvent } from '../src/live/columns';
import { Hub, type HubMessage, type PageMessage, type PortLike } from '../src/live/hub';
import { LiveStream, SILENCE, type EventSourceLike, type Signal } from '../src/live/stream';
import { Viewer, type WorkerLike } from '../src/live/viewer';

const STATE: Omit<StateEvent, 'type'> = {
  revision: 1,
  now: 1000,
  names: ['a', 'b'],
  units: ['bar', ''],
  values: [1, null],
  times: [900, null],
  qualities: [192, 32],
};
const DELTA: Omit<DeltaEvent, 'type'> = { revision: 2, now: 1200, tags: [1], values: [true], times: [1190], qualities: [192] };
const HEARTBEAT = { revision: 2, now: 2200 };

/** An event source that the test speaks through. */
class Wire implements EventSourceLike {
  static all: Wire[] = [];
  closed = false;
  private readonly listeners = new Map<string, (event: { data?: unknown }) => void>();

  constructor(readonly address = '') {
    Wire.all.push(this);
  }

  static get last(): Wire {
    const wire = Wire.all.at(-1);
    if (!wire) throw new Error('nothing was opened');
    return wire;
  }

  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void {
    this.listeners.set(type, listener);
  }

  close(): void {
    this.closed = true;
  }

  say(type: string, data: unknown): void {
    this.listeners.get(type)?.({ data: typeof data === 'string' ? data : JSON.stringify(data) });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  Wire.all = [];
});

afterEach(() => {
  vi.useRealTimers();
});

describe('the columns', () => {
  test('a state replaces everything, a delta changes only what it names', () => {
    const columns = new Columns();
    columns.apply({ type: 'state', ...STATE });
    columns.apply({ type: 'delta', ...DELTA });
    expect(columns.values).toEqual([1, true]);
    expect(columns.times).toEqual([900, 1190]);
    columns.apply({ type: 'state', ...STATE, names: ['c', 'd'] });
    expect(columns.index('a')).toBeUndefined();
    expect(columns.index('d')).toBe(1);
    expect(columns.values).toEqual([1, null]);
  });

  test('a delta may bring new tags and their first values at once', () => {
    const columns = new Columns();
    columns.apply({ type: 'state', ...STATE });
    columns.apply({ type: 'delta', ...DELTA, names: ['c', 'd'], units: ['mm', ''], tags: [2], values: [7] });
    expect(columns.index('c')).toBe(2);
    expect([columns.values[2], columns.units[2], columns.qualities[2]]).toEqual([7, 'mm', 192]);
    expect([columns.times[3], columns.qualities[3]]).toEqual([null, 32]);
  });

  test('a delta that names an unknown position is refused as a whole', () => {
    const columns = new Columns();
    columns.apply({ type: 'state', ...STATE });
    for (const tag of [2, -1, 0.5]) {
      expect(() => { columns.apply({ type: 'delta', ...DELTA, tags: [tag] }); }).toThrow(Malformed);
    }
    expect(columns.revision).toBe(1);
  });

  test('a later viewer gets the same picture from the snapshot', () => {
    const columns = new Columns();
    columns.apply({ type: 'state', ...STATE });
    columns.apply({ type: 'delta', ...DELTA });
    const later = new Columns();
    later.apply(structuredClone(columns.snapshot()));
    expect(later.values).toEqual(columns.values);
    expect(later.now).toBe(1200);
  });
});

test.each([
  ['state', 'no json'],
  ['state', '7'],
  ['state', 'null'],
  ['heartbeat', '{}'],
  ['state', JSON.stringify({ ...STATE, units: ['bar'] })],
  ['state', JSON.stringify({ ...STATE, names: 'ab' })],
  ['delta', JSON.stringify({ ...DELTA, times: [] })],
  ['delta', JSON.stringify({ ...DELTA, names: ['x'] })],
] as const)('a %s event that is %s is malformed', (type, text) => {
  expect(() => parseEvent(type, text)).toThrow(Malformed);
});

describe('the stream', () => {
  function open(): { signals: Signal[]; stream: LiveStream } {
    const signals: Signal[] = [];
    const stream = new LiveStream(() => new Wire(), (signal) => signals.push(signal));
    return { signals, stream };
  }

  test('passes state, delta and heartbeat on', () => {
    const { signals, stream } = open();
    Wire.last.say('state', STATE);
    Wire.last.say('delta', DELTA);
    Wire.last.say('heartbeat', HEARTBEAT);
    expect(signals.map(({ type }) => type)).toEqual(['state', 'delta', 'heartbeat']);
    stream.close();
  });

  test('is lost after three seconds of silence, not before, and opens anew', () => {
    const { signals, stream } = open();
    Wire.last.say('state', STATE);
    vi.advanceTimersByTime(SILENCE - 1);
    Wire.last.say('heartbeat', HEARTBEAT);
    vi.advanceTimersByTime(SILENCE - 1);
    expect(signals.at(-1)?.type).toBe('heartbeat');
    const silent = Wire.last;
    vi.advanceTimersByTime(1);
    expect(signals.at(-1)).toMatchObject({ type: 'lost' });
    expect(silent.closed).toBe(true);
    expect(stream.live).toBe(false);
    vi.advanceTimersByTime(1000);
    expect(Wire.all).toHaveLength(2);
    Wire.last.say('state', STATE);
    expect(signals.at(-1)?.type).toBe('state');
    stream.close();
  });

  test('is lost at once when the server closes it', () => {
    const { signals, stream } = open();
    Wire.last.say('state', STATE);
    Wire.last.say('error', '');
    expect(signals.at(-1)).toMatchObject({ type: 'lost' });
    stream.close();
  });

  test('says again that it is lost with every failed attempt, at most some five seconds apart', () => {
    const { signals, stream } = open();
    for (let attempt = 0; attempt < 10; attempt += 1) {
      Wire.last.say('error', '');
      vi.advanceTimersByTime(6300);
    }
    expect(signals.filter(({ type }) => type === 'lost').length).toBeGreaterThanOrEqual(10);
    expect(Wire.all.length).toBeGreaterThanOrEqual(10);
    stream.close();
  });

  test('nonsense counts as a loss: nothing half-applied is shown', () => {
    const { signals, stream } = open();
    Wire.last.say('state', STATE);
    Wire.last.say('delta', '{"broken');
    expect(signals.at(-1)).toMatchObject({ type: 'lost', reason: 'the delta event is not JSON' });
    stream.close();
  });

  test('a delta before any state is not applied', () => {
    const { signals, stream } = open();
    Wire.last.say('delta', { ...DELTA, tags: [], values: [], times: [], qualities: [] });
    expect(signals.map(({ type }) => type)).toEqual(['lost']);
    stream.close();
  });

  test('what an old connection says after it was given up is not heard', () => {
    const { signals, stream } = open();
    const old = Wire.last;
    old.say('error', '');
    vi.advanceTimersByTime(1000);
    old.say('state', STATE);
    expect(signals.map(({ type }) => type)).toEqual(['lost']);
    stream.close();
  });

  test('closing ends it for good', () => {
    const { signals, stream } = open();
    stream.close();
    vi.advanceTimersByTime(60_000);
    expect(Wire.all).toHaveLength(1);
    expect(Wire.last.closed).toBe(true);
    expect(signals).toEqual([]);
  });
});

/** A page's end of a port to the hub. */
class Port implements PortLike {
  readonly got: HubMessage[] = [];
  private readonly listeners = new Map<string, (event: { data?: PageMessage }) => void>();

  postMessage(message: HubMessage): void {
    this.got.push(message);
  }

  addEventListener(type: 'message' | 'close', listener: (event: { data?: PageMessage }) => void): void {
    this.listeners.set(type, listener);
  }

  start(): void {
    // Nothing waits in a test's port.
  }

  send(message: PageMessage): void {
    this.listeners.get('message')?.({ data: message });
  }

  vanish(): void {
    this.listeners.get('close')?.({});
  }
}

describe('the hub', () => {
  function join(hub: Hub): Port {
    const port = new Port();
    hub.connect(port);
    port.send({ type: 'join', address: '/api/live' });
    return port;
  }

  test('ten pages share one connection', () => {
    const hub = new Hub((address) => new Wire(address));
    const ports = Array.from({ length: 10 }, () => join(hub));
    Wire.last.say('state', STATE);
    expect(Wire.all.map(({ address }) => address)).toEqual(['/api/live']);
    for (const port of ports) expect(port.got.map(({ type }) => type)).toEqual(['hello', 'state']);
  });

  test('a page that comes later gets the whole picture at once', () => {
    const hub = new Hub(() => new Wire());
    join(hub);
    Wire.last.say('state', STATE);
    Wire.last.say('delta', DELTA);
    const later = join(hub);
    expect(later.got).toMatchObject([{ type: 'hello' }, { type: 'state', values: [1, true] }]);
  });

  test('the connection ends with the last page, also when that vanishes without a word', () => {
    const hub = new Hub(() => new Wire());
    const [first, second] = [join(hub), join(hub)];
    first.send({ type: 'leave' });
    expect(Wire.last.closed).toBe(false);
    second.vanish();
    expect(Wire.last.closed).toBe(true);
    join(hub);
    expect(Wire.all).toHaveLength(2);
  });
});

describe('a page', () => {
  /** A worker that the test speaks through. */
  class Worker implements WorkerLike {
    readonly sent: PageMessage[] = [];
    private hear: (event: { data: HubMessage }) => void = () => undefined;
    private fail: () => void = () => undefined;
    readonly port = {
      postMessage: (message: PageMessage) => this.sent.push(message),
      addEventListener: (_type: 'message', listener: (event: { data: HubMessage }) => void) => {
        this.hear = listener;
      },
      start: () => undefined,
      close: () => undefined,
    };

    addEventListener(_type: 'error', listener: () => void): void {
      this.fail = listener;
    }

    say(message: HubMessage): void {
      this.hear({ data: message });
    }

    breakDown(): void {
      this.fail();
    }
  }

  function view(worker: (() => WorkerLike) | null): { signals: Signal[]; viewer: Viewer } {
    const signals: Signal[] = [];
    const viewer = new Viewer({ address: '/api/live', worker, source: (address) => new Wire(address) }, (signal) => signals.push(signal));
    return { signals, viewer };
  }

  test('uses the shared worker where there is one', () => {
    const worker = new Worker();
    const { signals, viewer } = view(() => worker);
    expect(worker.sent).toEqual([{ type: 'join', address: '/api/live' }]);
    worker.say({ type: 'hello' });
    worker.say({ type: 'state', ...STATE });
    expect(signals.map(({ type }) => type)).toEqual(['state']);
    expect(Wire.all).toHaveLength(0);
    viewer.close();
    expect(worker.sent.at(-1)).toEqual({ type: 'leave' });
  });

  test.each<[string, (() => WorkerLike) | null]>([
    ['has none', null],
    ['forbids it', () => { throw new Error('forbidden'); }],
  ])('opens a stream of its own where the browser %s', (_reason, worker) => {
    const { signals, viewer } = view(worker);
    Wire.last.say('state', STATE);
    expect(signals.map(({ type }) => type)).toEqual(['state']);
    viewer.close();
    expect(Wire.last.closed).toBe(true);
  });

  test('opens a stream of its own when the worker fails to load or falls silent', () => {
    const worker = new Worker();
    const { viewer } = view(() => worker);
    worker.breakDown();
    expect(Wire.all).toHaveLength(1);
    viewer.close();

    const mute = new Worker();
    const second = view(() => mute);
    vi.advanceTimersByTime(11_000);
    expect(Wire.all).toHaveLength(2);
    expect(second.signals).toMatchObject([{ type: 'lost' }]);
    second.viewer.close();
  });

  test('does not trust a worker that stopped speaking: its values are lost after three and a half seconds', () => {
    const worker = new Worker();
    const { signals, viewer } = view(() => worker);
    worker.say({ type: 'state', ...STATE });
    vi.advanceTimersByTime(3000);
    expect(signals.map(({ type }) => type)).toEqual(['state']);
    vi.advanceTimersByTime(1000);
    expect(signals.map(({ type }) => type)).toEqual(['state', 'lost']);
    worker.say({ type: 'state', ...STATE });
    expect(signals.at(-1)?.type).toBe('state');
    viewer.close();
  });
});
