// @vitest-environment jsdom
import { mount, unmount, tick as settled } from 'svelte';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Permission } from '../src/api';
import type { HoldAnswer, HoldRequest, Note } from '../src/control/hold';
import { freshId } from '../src/control/id';
import { HoldSocket, type WebSocketLike } from '../src/control/socket';
import HoldButton from '../src/parts/HoldButton.svelte';

/** A socket that the test is the other side of. */
class Wire implements WebSocketLike {
  static all: Wire[] = [];
  readyState = 0;
  readonly sent: HoldRequest[] = [];
  private readonly listeners = new Map<string, (event: { data?: unknown }) => void>();

  constructor() {
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

  send(text: string): void {
    this.sent.push(JSON.parse(text) as HoldRequest);
  }

  close(): void {
    this.end();
  }

  open(): void {
    this.readyState = 1;
    this.listeners.get('open')?.({});
  }

  end(): void {
    this.readyState = 3;
    this.listeners.get('close')?.({});
  }

  say(answer: HoldAnswer | string): void {
    this.listeners.get('message')?.({ data: typeof answer === 'string' ? answer : JSON.stringify(answer) });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  Wire.all = [];
});

afterEach(() => {
  vi.useRealTimers();
});

describe('the socket', () => {
  test('sends only while it is open, never late', () => {
    const socket = new HoldSocket(() => new Wire(), () => undefined);
    expect(socket.send({ type: 'renew', press: 'p', seq: 1 })).toBe(false);
    Wire.last.open();
    expect(Wire.last.sent).toEqual([]);
    expect(socket.send({ type: 'renew', press: 'p', seq: 1 })).toBe(true);
    expect(Wire.last.sent).toHaveLength(1);
    socket.close();
  });

  test('comes back after a loss, tells buttons of it, and waits longer each time', () => {
    const changes: boolean[] = [];
    const socket = new HoldSocket(() => new Wire(), (up) => changes.push(up));
    const closed = vi.fn();
    socket.listen({ answer: vi.fn(), closed });
    Wire.last.open();
    Wire.last.end();
    expect(changes).toEqual([true, false]);
    expect(closed).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(500);
    Wire.last.end();
    vi.advanceTimersByTime(999);
    expect(Wire.all).toHaveLength(2);
    vi.advanceTimersByTime(1);
    expect(Wire.all).toHaveLength(3);
    socket.close();
    vi.advanceTimersByTime(60_000);
    expect(Wire.all).toHaveLength(3);
  });

  test.each(['', 'nonsense', '7', 'null', '[]', '{"type":"surprise"}'])('an answer that is “%s” is not passed on', (text) => {
    const socket = new HoldSocket(() => new Wire(), () => undefined);
    const answer = vi.fn();
    socket.listen({ answer, closed: vi.fn() });
    Wire.last.open();
    Wire.last.say(text);
    expect(answer).not.toHaveBeenCalled();
    socket.close();
  });
});

test('ids are 32 hex digits and never the same', () => {
  const ids = new Set(Array.from({ length: 1000 }, freshId));
  expect(ids.size).toBe(1000);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{32}$/);
});

describe('the hold button', () => {
  const permission: Permission = {
    tag: 'press-1/Start', role: 'operator', range: null, momentary: true, lease: 500, expires: 5000, allowed: true, held_by: null,
  };
  let app: Record<string, unknown> | null = null;
  let socket: HoldSocket;
  let button: HTMLButtonElement;
  let notes: (Note | null)[];

  function show(blocked = ''): void {
    notes = [];
    socket = new HoldSocket(() => new Wire(), () => undefined);
    Wire.last.open();
    app = mount(HoldButton, {
      target: document.body,
      props: { permission, label: 'Start', icon: 'running', socket, blocked, told: (note) => notes.push(note) },
    });
    const found = document.querySelector('button');
    if (!found) throw new Error('there is no button');
    button = found;
    button.hasPointerCapture = () => true;
    button.releasePointerCapture = vi.fn();
  }

  async function hide(): Promise<void> {
    if (app !== null) await unmount(app);
    app = null;
  }

  afterEach(async () => {
    await hide();
    socket.close();
  });

  const pointer = (type: string, options: MouseEventInit = {}) => {
    button.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, button: 0, ...options }));
  };
  const key = (type: string, name: string, repeat = false) => {
    const event = new KeyboardEvent(type, { key: name, repeat, bubbles: true, cancelable: true });
    button.dispatchEvent(event);
    return event;
  };
  const types = () => Wire.last.sent.map(({ type }) => type);
  const release = () => Wire.last.sent.find((request) => request.type === 'release');

  test('presses on pointer down and renews every 200 ms', async () => {
    show();
    await settled();
    pointer('pointerdown');
    vi.advanceTimersByTime(650);
    expect(types()).toEqual(['press', 'renew', 'renew', 'renew']);
    expect(button.releasePointerCapture).toHaveBeenCalled();
  });

  const ENDS: Readonly<Record<string, () => void>> = {
    pointerup: () => { pointer('pointerup'); },
    pointerleave: () => { pointer('pointerleave'); },
    pointercancel: () => { pointer('pointercancel'); },
    blur: () => { window.dispatchEvent(new Event('blur')); },
    'page left': () => { window.dispatchEvent(new Event('pagehide')); },
    hidden: () => {
      vi.spyOn(document, 'hidden', 'get').mockReturnValue(true);
      document.dispatchEvent(new Event('visibilitychange'));
    },
    'another key': () => { key('keydown', 'Escape'); },
  };

  test.each(Object.keys(ENDS))('is released once by %s, whatever follows', async (reason) => {
    show();
    await settled();
    pointer('pointerdown');
    ENDS[reason]?.();
    for (const end of Object.values(ENDS)) end();
    vi.advanceTimersByTime(1000);
    expect(types()).toEqual(['press', 'release']);
    expect(release()).toMatchObject({ reason });
  });

  test.each([' ', 'Enter'])('the key “%s” holds it, its repetitions do not press again, letting go releases', async (name) => {
    show();
    await settled();
    expect(key('keydown', name).defaultPrevented).toBe(true);
    key('keydown', name, true);
    key('keydown', name, true);
    key('keyup', name);
    key('keyup', name);
    expect(types()).toEqual(['press', 'release']);
    expect(release()).toMatchObject({ reason: 'keyup' });
  });

  test('only the main button of a mouse presses, and no menu opens', async () => {
    show();
    await settled();
    pointer('pointerdown', { button: 2 });
    expect(types()).toEqual([]);
    const menu = new MouseEvent('contextmenu', { bubbles: true, cancelable: true });
    button.dispatchEvent(menu);
    expect(menu.defaultPrevented).toBe(true);
  });

  test('leaving the page while it is held releases it', async () => {
    show();
    await settled();
    pointer('pointerdown');
    await hide();
    vi.advanceTimersByTime(1000);
    expect(types()).toEqual(['press', 'release']);
    expect(release()).toMatchObject({ reason: 'page left' });
  });

  test('a blocked button says why and sends nothing', async () => {
    show('No connection to Shopfloor');
    await settled();
    pointer('pointerdown');
    key('keydown', ' ');
    vi.advanceTimersByTime(1000);
    expect(types()).toEqual([]);
    expect(button.textContent).toContain('No connection to Shopfloor');
    expect(button.getAttribute('aria-disabled')).toBe('true');
  });

  test('a press that cannot be sent is none', async () => {
    show();
    await settled();
    Wire.last.readyState = 2;
    pointer('pointerdown');
    vi.advanceTimersByTime(1000);
    expect(types()).toEqual([]);
    expect(notes.at(-1)).toMatchObject({ text: 'Not pressed: no connection to Shopfloor' });
  });

  test('a connection that breaks while it is held ends the press and says so', async () => {
    show();
    await settled();
    pointer('pointerdown');
    Wire.last.end();
    await settled();
    expect(notes.at(-1)).toMatchObject({ text: 'Released: the connection was lost' });
    vi.advanceTimersByTime(5000);
    expect(Wire.all.flatMap(({ sent }) => sent.map(({ type }) => type))).toEqual(['press']);
  });

  test('says what it does, and what came of it', async () => {
    show();
    await settled();
    expect(button.textContent).toContain('Press and hold');
    pointer('pointerdown');
    await settled();
    expect(button.textContent).toContain('Pressing');
    const press = Wire.last.sent[0]?.press ?? '';
    const said = { type: 'outcome', press, tag: permission.tag, detail: '', done: true } as const;
    Wire.last.say({ ...said, event: 'press', value: true, reason: '' });
    await settled();
    expect(button.textContent).toContain('Held');
    expect(button.getAttribute('aria-pressed')).toBe('true');
    pointer('pointerup');
    Wire.last.say({ ...said, event: 'release', value: false, reason: 'pointerup' });
    await settled();
    expect(button.textContent).toContain('Press and hold');
    expect(notes.at(-1)).toMatchObject({ tone: 'good', text: 'Released' });
  });
});
