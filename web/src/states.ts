/** States of machines and components as words, icon and tone. */

import type { ComponentState } from './api';
import type { Tone } from './control/hold';
import { formatValue } from './format';
import type { IconName } from './parts/Icon.svelte';
import type { Value } from './value';

/** How a state is shown. */
export interface Shown {
  text: string;
  icon: IconName;
  tone: Tone;
}

const COMPONENT: Readonly<Record<ComponentState, Shown>> = {
  running: { text: 'running', icon: 'good', tone: 'good' },
  starting: { text: 'starting', icon: 'waiting', tone: 'plain' },
  waiting: { text: 'waiting', icon: 'waiting', tone: 'warning' },
  paused: { text: 'paused', icon: 'paused', tone: 'warning' },
  misconfigured: { text: 'needs a change', icon: 'bad', tone: 'bad' },
  failed: { text: 'restarting', icon: 'bad', tone: 'bad' },
  stopped: { text: 'stopped', icon: 'stopped', tone: 'bad' },
};

export function componentState(state: ComponentState): Shown {
  // A newer server may know states that this page does not: show its word rather than nothing.
  return COMPONENT[state] ?? { text: state, icon: 'plain', tone: 'plain' };
}

const RUNS = /^(run|running|execute|executing|producing|production|auto|automatic|on|busy|active)$/i;
const STANDS = /^(stop|stopped|stopping|idle|off|standby|ready|held|holding|suspended|complete|completed|not running)$/i;
const FAILS = /^(fault|faulted|error|alarm|abort|aborted|aborting|down|breakdown|emergency.?stop|e-?stop)$/i;

/** The states of PackML (ISA-TR88.00.02) by number: what a state tag of whole numbers means unless told otherwise. */
const PACKML: readonly Shown[] = [
  { text: 'undefined', icon: 'plain', tone: 'plain' },
  { text: 'clearing', icon: 'plain', tone: 'plain' },
  { text: 'stopped', icon: 'stopped', tone: 'plain' },
  { text: 'starting', icon: 'waiting', tone: 'plain' },
  { text: 'idle', icon: 'stopped', tone: 'plain' },
  { text: 'suspended', icon: 'paused', tone: 'plain' },
  { text: 'running', icon: 'running', tone: 'good' },
  { text: 'stopping', icon: 'waiting', tone: 'plain' },
  { text: 'aborting', icon: 'bad', tone: 'bad' },
  { text: 'aborted', icon: 'bad', tone: 'bad' },
  { text: 'holding', icon: 'paused', tone: 'warning' },
  { text: 'held', icon: 'paused', tone: 'warning' },
  { text: 'unholding', icon: 'waiting', tone: 'plain' },
  { text: 'suspending', icon: 'waiting', tone: 'plain' },
  { text: 'unsuspending', icon: 'waiting', tone: 'plain' },
  { text: 'resetting', icon: 'waiting', tone: 'plain' },
  { text: 'completing', icon: 'waiting', tone: 'plain' },
  { text: 'complete', icon: 'stopped', tone: 'plain' },
];

/** A machine's state tag: bool as running or not, PackML's numbers, usual words with their icon, else as it is. */
export function machineState(value: Value | undefined): Shown {
  const packml = typeof value === 'number' ? PACKML[value] : undefined;
  if (packml !== undefined) return packml;
  if (value === true) return { text: 'running', icon: 'running', tone: 'good' };
  if (value === false) return { text: 'not running', icon: 'stopped', tone: 'plain' };
  const text = formatValue(value);
  if (typeof value !== 'string') return { text: value === null || value === undefined ? 'no state yet' : `state ${text}`, icon: 'plain', tone: 'plain' };
  const shown = text.toLowerCase().replaceAll('_', ' ');
  if (RUNS.test(value)) return { text: shown, icon: 'running', tone: 'good' };
  if (FAILS.test(value)) return { text: shown, icon: 'bad', tone: 'bad' };
  if (STANDS.test(value)) return { text: shown, icon: 'stopped', tone: 'plain' };
  return { text, icon: 'plain', tone: 'plain' };
}
