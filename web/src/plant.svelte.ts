/** What the console knows of the plant besides live values: machines, tags, components; asked for, not streamed. */

import {
  getComponents, getLines, getMachines, getMe, getPlant, getTags, Problem,
  type Component, type Components, type Line, type LiveFigures, type Machine, type Me, type PlantInfo, type TagRow,
} from './api';
import { live } from './live/live.svelte';
import { giver, standing, type Standing } from './liveness';

const POLL = 2000;
const AGAIN = 3000;

/** Samples per second of each component, by what it counted between two answers. */
function rates(before: Components | null, after: Components): Map<string, number> {
  const seconds = before === null ? 0 : (after.now - before.now) / 1000;
  if (before === null || seconds <= 0) return new Map();
  const counted = new Map(before.components.map((component) => [component.name, component.samples]));
  return new Map(
    after.components.map((component) => {
      const since = component.samples - (counted.get(component.name) ?? component.samples);
      return [component.name, Math.max(0, since / seconds)];
    }),
  );
}

function figuresOf(machines: readonly Machine[]): Map<string, LiveFigures> {
  return new Map(machines.flatMap(({ id, live: figures }): [string, LiveFigures][] => (figures === null ? [] : [[id, figures]])));
}

class Plant {
  info = $state.raw<PlantInfo | null>(null);
  me = $state.raw<Me | null>(null);
  machines = $state.raw<Machine[] | null>(null);
  /** Lines, areas and the site, with the running figures that they were last asked for. */
  lines = $state.raw<Line[]>([]);
  /** The running figures of machines that have some, as they were last asked for. */
  figures = $state.raw(new Map<string, LiveFigures>());
  tags = $state.raw(new Map<string, TagRow>());
  components = $state.raw<Components | null>(null);
  rates = $state.raw(new Map<string, number>());
  /** Why the last question got no answer; null when it did. */
  problem = $state.raw<Problem | null>(null);
  private timer: ReturnType<typeof setTimeout> | undefined;
  private loading = false;
  private wanted = false;

  private readonly byName = $derived(
    new Map<string, Component>(this.components?.components.map((component) => [component.name, component])),
  );

  /** Asks for everything that changes only with the plant file; again, should that fail. */
  async load(): Promise<void> {
    if (this.loading) {
      this.wanted = true;
      return;
    }
    this.loading = true;
    try {
      const [info, me, machines, lines, tags] = await Promise.all([getPlant(), getMe(), getMachines(), getLines(), getTags()]);
      this.info = info;
      this.me = me;
      this.machines = machines;
      this.lines = lines;
      this.figures = figuresOf(machines);
      this.tags = new Map(tags.map((row) => [row.tag, row]));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.problem = error;
      setTimeout(() => void this.load(), AGAIN);
    } finally {
      this.loading = false;
    }
    if (this.wanted) {
      this.wanted = false;
      await this.load();
    }
  }

  /** Keeps asking how the components are, while somebody looks. */
  watch(): void {
    const ask = async (): Promise<void> => {
      if (!document.hidden) await this.refresh();
      this.timer = setTimeout(() => void ask(), POLL);
    };
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) return;
      clearTimeout(this.timer);
      void ask();
    });
    void ask();
  }

  /** Asks how the components are, now. */
  async refresh(): Promise<void> {
    try {
      const components = await getComponents();
      this.rates = rates(this.components, components);
      this.components = components;
      this.problem = null;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.problem = error;
    }
  }

  /** Asks again for the figures of machines and lines; what else is known of machines stays. */
  async refreshFigures(): Promise<void> {
    try {
      const [machines, lines] = await Promise.all([getMachines(), getLines()]);
      this.figures = figuresOf(machines);
      this.lines = lines;
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // that nothing answers is said elsewhere
    }
  }

  /** The component that gives a tag, when known. */
  sourceOf(tag: string): Component | undefined {
    return this.byName.get(this.tags.get(tag)?.source ?? '');
  }

  /** Whether a tag's value may be taken for what the machine says now. */
  standing(tag: string, quality: number, time: number | null): Standing {
    return standing(quality, time, {
      connected: live.phase === 'live',
      source: giver(this.sourceOf(tag), this.components?.components ?? [], time),
    });
  }
}

export const plant = new Plant();
