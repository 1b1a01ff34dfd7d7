/** Whether a value may be taken for what the machine says now, and if not, why. */

import type { Component, ComponentState } from './api';
import { grade, qualityText, type Grade } from './quality';

/** A value's standing: `live` only when nothing speaks against it. */
export interface Standing {
  live: boolean;
  grade: Grade;
  /** Short words for beside the value: good, not connected, paused … */
  text: string;
  /** The whole reason, empty when live. */
  reason: string;
}

const AWAY: Readonly<Partial<Record<ComponentState, string>>> = {
  waiting: 'cannot be reached',
  paused: 'is paused',
  misconfigured: 'has stopped: its configuration needs a change',
  failed: 'had an error and is being restarted',
  stopped: 'is stopped',
};

/** What is known of a value besides itself. */
export interface Circumstances {
  /** Whether the stream of live values is up. */
  connected: boolean;
  /** The component that gives the tag, when known. */
  source: Component | undefined;
}

/** How long after its source went away a derived value may still come out of the pipeline, ms. */
const UNDER_WAY = 2000;

/**
 * The component that a tag's value depends on: its source; for what a processor derives, the first source that went
 * away with nothing derived since. Which inputs a processor has is not known here, so this errs on the side of doubt.
 */
export function giver(own: Component | undefined, all: readonly Component[], time: number | null): Component | undefined {
  if (own?.kind !== 'processor' || own.state !== 'running') return own;
  const away = all.find(({ kind, state, since }) => kind === 'source' && state in AWAY && (time ?? 0) < since + UNDER_WAY);
  return away ?? own;
}

/** Judges a value by its quality, its source and the stream. `time` null: nothing was received yet. */
export function standing(quality: number, time: number | null, { connected, source }: Circumstances): Standing {
  if (!connected) {
    return { live: false, grade: 'bad', text: 'stream lost', reason: 'The stream is lost: this is the last value that this page got.' };
  }
  const away = source === undefined ? undefined : AWAY[source.state];
  const said = source === undefined ? '' : `${source.name} ${away ?? ''}`;
  if (time === null) {
    return { live: false, grade: 'bad', text: 'no value yet', reason: away === undefined ? 'Nothing was received yet.' : `Nothing was received yet: ${said}.` };
  }
  if (away !== undefined) {
    return { live: false, grade: 'bad', text: source?.state === 'paused' ? 'source paused' : 'source away', reason: `Last known value: ${said}.` };
  }
  const graded = grade(quality);
  const text = qualityText(quality);
  if (graded === 'good') return { live: true, grade: graded, text, reason: '' };
  return { live: false, grade: graded, text, reason: `The source says: ${text} (OPC quality ${quality}).` };
}
