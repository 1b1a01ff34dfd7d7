/** The figures of one machine, asked for again and again while somebody looks. */

import { getFigures, getTimeline, Problem, type MachineFigures, type Timeline } from '../api';

const EVERY = 4000;

/** What is known of a machine's running shift; `stop` when the page is left. */
export class Figures {
  kpi = $state.raw<MachineFigures | null>(null);
  timeline = $state.raw<Timeline | null>(null);
  /** Why the last question got no answer; null when it did. */
  problem = $state.raw<Problem | null>(null);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly stopped = new AbortController();

  constructor(private readonly machine: string) {
    void this.ask();
  }

  private async ask(): Promise<void> {
    const { signal } = this.stopped;
    if (!document.hidden) {
      try {
        const [kpi, timeline] = await Promise.all([getFigures(this.machine, signal), getTimeline(this.machine, signal)]);
        this.kpi = kpi;
        this.timeline = timeline;
        this.problem = null;
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Problem)) throw error;
        this.problem = error;
      }
    }
    if (!signal.aborted) this.timer = setTimeout(() => void this.ask(), EVERY);
  }

  stop(): void {
    this.stopped.abort();
    clearTimeout(this.timer);
  }
}
