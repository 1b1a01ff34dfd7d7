/** The stops of a machine in one of its windows, asked for again and again while somebody looks. */

import { getTimeline, Problem, type KpiRecord, type MachineFigures, type Span, type Timeline } from '../api';
import { getReasons, getStops, getWindows, type KnownReason, type Stops, type WindowKind } from './api';
import { ranges, type Range } from './ranges';

const EVERY = 4000;
/** While something that was said is on its way into the figures. */
const SOON = 500;
const PATIENCE = 20_000;

/** What is known; `stop` when the page is left or something else is looked at. */
export class Watch {
  ranges = $state.raw<Range[] | null>(null);
  range = $state.raw<Range | null>(null);
  stops = $state.raw<Stops | null>(null);
  timeline = $state.raw<Timeline | null>(null);
  titles = $state.raw<Readonly<Record<string, string>>>({});
  reasons = $state.raw<KnownReason[]>([]);
  /** Why the last question got no answer; null when it did. */
  problem = $state.raw<Problem | null>(null);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private hurry = 0;
  private readonly stopped = new AbortController();

  /** `start` is the begin of the window that is wanted; NaN: the newest. */
  constructor(private readonly machine: string, private readonly kind: WindowKind, private readonly start: number, private readonly zone: string) {
    void this.ask();
  }

  /** Something was said: it shows within seconds. */
  soon(): void {
    this.hurry = Date.now() + PATIENCE;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask(), SOON);
  }

  private async ask(): Promise<void> {
    const { signal } = this.stopped;
    if (!document.hidden) {
      try {
        await this.load(signal);
        this.problem = null;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Problem)) throw error;
        this.problem = error;
      }
    }
    if (signal.aborted) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.ask(), Date.now() < this.hurry ? SOON : EVERY);
  }

  private async load(signal: AbortSignal): Promise<void> {
    const [figures, shifts] = await this.figures(signal);
    const all = ranges(this.kind, figures, shifts, this.zone);
    const range = all.find(({ start }) => start === this.start) ?? all.at(-1) ?? null;
    this.titles = figures.reasons;
    if (range !== null) {
      const span: Span = { start: range.start, end: Math.min(range.end, Math.max(figures.now, range.start + 1000)) };
      const [stops, timeline, reasons] = await Promise.all([
        getStops(this.machine, span, signal),
        getTimeline(this.machine, signal, { start: range.start, end: range.end }),
        getReasons(this.machine, signal),
      ]);
      [this.stops, this.timeline, this.reasons] = [stops, timeline, reasons];
    }
    [this.ranges, this.range] = [all, range];
  }

  private async figures(signal: AbortSignal): Promise<[MachineFigures, KpiRecord[]]> {
    const [figures, shifts] = await Promise.all([
      getWindows(this.machine, this.kind, signal),
      this.kind === 'day' ? getWindows(this.machine, 'shift', signal) : null,
    ]);
    return [figures, shifts?.records ?? []];
  }

  stop(): void {
    this.stopped.abort();
    clearTimeout(this.timer);
  }
}
