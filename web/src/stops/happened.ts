/** What happened, in words: a line for the shift lead, and what to know beside it. */

import { formatDuration, formatNumber, formatValue } from '../format';
import { siteClock, siteSpan } from '../kpi/clock';
import { className, percent, reasonTitle } from '../kpi/words';
import type { IconName } from '../parts/Icon.svelte';
import type { Happened, Kind } from './api';

export const KINDS: readonly { id: Kind; label: string }[] = [
  { id: 'stop', label: 'Stops' },
  { id: 'edit', label: 'Reasons given' },
  { id: 'correction', label: 'Corrected figures' },
  { id: 'loss', label: 'Sources away' },
  { id: 'unknown_state', label: 'Unknown states' },
];

export interface Words {
  icon: IconName;
  text: string;
  detail: string;
  /** Whether somebody should do something about it. */
  warning: boolean;
}

type Titles = Readonly<Record<string, string>>;

/** Its words; times at the site. */
export function words(event: Happened, titles: Titles, zone: string, now: number): Words {
  switch (event.kind) {
    case 'stop': {
      const reasons = event.reasons.map(({ reason, by, comment }) => {
        const said = comment === '' ? by : `${by}: “${comment}”`;
        return reason === '' ? 'no reason given' : `${reasonTitle(reason, titles)}${by === '' ? '' : ` (${said})`}`;
      });
      const lasting = event.end === null ? `lasts for ${formatDuration(now - event.time)}` : formatDuration(event.end - event.time);
      return { icon: 'stopped', text: `${className(event.class)}, ${lasting}`, detail: [...new Set(reasons)].join(', '), warning: event.unexplained };
    }
    case 'edit': {
      const times = `${siteClock(event.from, zone)}–${event.to === null ? 'end of the stop' : siteClock(event.to, zone)}`;
      const reason = event.reason === '' ? 'as the machine says' : reasonTitle(event.reason, titles);
      const back = event.undone === null ? '' : `, taken back by ${event.undone.by} at ${siteClock(event.undone.time, zone)}`;
      return { icon: 'person', text: `${reason} for ${times}`, detail: `${event.by}${event.comment === '' ? '' : `: “${event.comment}”`}${back}`, warning: false };
    }
    case 'correction': {
      const which = event.window === 'hour' ? `The hour ${siteSpan(event.start, event.end, zone)}` : event.window === 'day' ? 'The day' : `The shift ${event.shift}, ${siteSpan(event.start, event.end, zone)},`;
      return { icon: 'report', text: `${which} was corrected: ${changed(event.was, event.is)}`, detail: `Why: ${event.why}`, warning: false };
    }
    case 'loss': {
      const lasting = event.until === null ? `is away for ${formatDuration(now - event.time)}` : `was away for ${formatDuration(event.until - event.time)}`;
      const kept = event.complete ? 'Nothing is missing: it had kept what happened.' : event.until === null ? '' : 'What happened meanwhile is unknown.';
      return { icon: 'lost', text: `The source ${event.source} ${lasting}`, detail: kept, warning: event.until === null };
    }
    case 'unknown_state':
      return {
        icon: 'warning',
        text: `A state that nobody explained: “${formatValue(event.value)}”`,
        detail: `Such time counts as unknown. Say in the plant file what it means: under ${event.machine}, states.`,
        warning: true,
      };
    default:
      return unheard(event);
  }
}

/** A newer server may know kinds that this page does not. */
function unheard(event: { kind: string }): Words {
  return { icon: 'plain', text: event.kind, detail: '', warning: false };
}

const SHOWN: readonly { name: string; label: string; write: (value: number | null) => string }[] = [
  { name: 'oee', label: 'OEE', write: percent },
  { name: 'availability', label: 'availability', write: percent },
  { name: 'performance', label: 'performance', write: percent },
  { name: 'quality', label: 'quality', write: percent },
  { name: 'good', label: 'good', write: (value) => formatNumber(value ?? 0) },
  { name: 'scrap', label: 'scrap', write: (value) => formatNumber(value ?? 0) },
];

/** Which main figures are others now; a reason alone changes none. */
export function changed(was: Record<string, number | null>, is: Record<string, number | null>): string {
  const found = SHOWN.flatMap(({ name, label, write }) => {
    const [before, after] = [write(was[name] ?? null), write(is[name] ?? null)];
    return before === after ? [] : [`${label} ${before} → ${after}`];
  });
  return found.length === 0 ? 'the main figures stay as they were' : found.join(', ');
}
