/** The plant's health in words: what is wrong for the shift lead, the engineer's detail beside it. */

import type { Component, Components } from './api';
import { counted, formatDuration } from './format';
import type { Tone } from './control/hold';

/** One thing to know about the plant. */
export interface Finding {
  tone: Tone;
  text: string;
  detail: string;
}

function said(component: Component): string {
  return `${component.name} (${component.kind}, ${component.type}) ${component.state}${component.last_error === '' ? '' : `: ${component.last_error}`}`;
}

/** What of its values is lost meanwhile for want of room; nothing while all of them wait. */
function lost({ dropped = 0 }: Component): string {
  return dropped === 0 ? '' : `. There is no room for all that waits for it: ${counted(dropped, 'value was', 'values were')} dropped, the oldest first`;
}

function whatWaits(component: Component, later: string): string {
  const dropped = lost(component);
  return dropped === '' ? `. Its values wait here and are ${later} later` : `${dropped}. The rest is ${later} later`;
}

function waitingText(component: Component, age: string): string {
  switch (component.kind) {
    case 'source':
      return `No values from ${component.name} for ${age}: it cannot be reached. Shopfloor keeps trying`;
    case 'sink':
      return `${component.name} has been out of reach for ${age}${whatWaits(component, 'delivered')}`;
    case 'historian':
      return `The historian has been out of reach for ${age}${whatWaits(component, 'stored')}`;
    case 'processor':
      return `${component.name} has been waiting for ${age}`;
  }
}

/** What is to be said about one component; null when it runs. */
export function finding(component: Component, now: number): Finding | null {
  const detail = said(component);
  const away = lost(component);
  switch (component.state) {
    case 'running':
      return null;
    case 'starting':
      return { tone: 'plain', text: `${component.name} is starting`, detail };
    case 'paused':
      return { tone: away === '' ? 'warning' : 'bad', text: `${component.name} is paused. It goes on when somebody resumes it${away}`, detail };
    case 'waiting':
      return { tone: component.kind === 'source' || away !== '' ? 'bad' : 'warning', text: waitingText(component, formatDuration(now - component.since)), detail };
    case 'misconfigured':
      return { tone: 'bad', text: `${component.name} has stopped: its configuration needs a change${away}`, detail };
    case 'failed':
      return { tone: 'bad', text: `${component.name} had an error and is being restarted${away}`, detail };
    case 'stopped':
      return { tone: 'bad', text: `${component.name} is stopped${away}`, detail };
  }
}

const ORDER: Readonly<Record<Tone, number>> = { bad: 0, warning: 1, plain: 2, good: 3 };

/** Everything that is not as it should be, the worst first. */
export function findings(components: Components, now: number): Finding[] {
  const found = components.components.flatMap((component) => finding(component, now) ?? []);
  const { journal } = components;
  if (journal.damaged > 0) {
    found.push({
      tone: 'bad',
      text: `${counted(journal.damaged, 'entry', 'entries')} of the journal cannot be read; everything else is intact`,
      detail: 'the ledger names the intervals',
    });
  }
  if (journal.salvaged !== undefined && journal.salvaged !== '') {
    found.push({ tone: 'warning', text: 'The journal was damaged and has been repaired', detail: journal.salvaged });
  }
  if (journal.thinned !== undefined && journal.thinned > 0) {
    found.push({
      tone: 'warning',
      text: `${counted(journal.thinned, 'measurement was', 'measurements were')} taken out of the journal to make room`,
      detail: 'a sink that is far behind gets the smallest and the largest of every four; figures are made of all',
    });
  }
  if (journal.dropped !== undefined && journal.dropped > 0) {
    found.push({
      tone: 'bad',
      text: `${counted(journal.dropped, 'value was', 'values were')} dropped to make room, before everything had taken them`,
      detail: 'a sink is far behind and the journal had reached `keep`; the ledger on the page Components says who lacks them',
    });
  }
  if (journal.full === true) {
    found.push({
      tone: 'bad',
      text: 'The journal is full: sources wait until there is room',
      detail: 'a sink is far behind, or `keep` of the journal is too small for this plant',
    });
  } else if (journal.keep > 0 && journal.size > 0.9 * journal.keep) {
    found.push({
      tone: 'warning',
      text: `The journal is ${Math.round((100 * journal.size) / journal.keep)} % full`,
      detail: 'a sink is far behind, or `keep` of the journal is too small for this plant',
    });
  }
  return found.sort((a, b) => ORDER[a.tone] - ORDER[b.tone]);
}

/** The first line when all is well. */
export function allRunning(count: number): string {
  if (count === 0) return 'Nothing is connected yet';
  return count === 1 ? 'The only component is running' : `All ${count} components are running`;
}
