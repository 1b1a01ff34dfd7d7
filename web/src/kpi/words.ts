/** Figures of machines in words and numbers: percentages, classes of time, states, reasons, what to be careful about. */

import type { KpiRecord, LiveFigures, Loss, Timeline, Whole, WindowRecord } from '../api';
import { counted, formatDuration } from '../format';
import type { Shown } from '../states';

export const NOTHING = '—';
/** Below this coverage a figure is said with what the unknown time allows (docs/specs/kpi.md, 12). */
export const SURE = 0.99;
/** ms without a new figure after which they are said to be old; the slowest usual rate is some seconds. */
export const OLD = 60_000;

/** Moves the decimal point without touching the digits: 0.8725 by 3 is 872.5, whatever its binary neighbour says. */
function shifted(number: number, by: number): number {
  const [digits = '0', exponent = '0'] = String(number).split('e');
  return Number(`${digits}e${Number(exponent) + by}`);
}

/** A fraction as a percentage, rounded half up; “—” for what has no meaning. */
export function percent(fraction: number | null | undefined, digits = 1): string {
  if (fraction === null || fraction === undefined || !Number.isFinite(fraction)) return NOTHING;
  return `${shifted(Math.round(shifted(fraction, 2 + digits)), -digits).toFixed(digits)} %`;
}

/** Seconds as people say them; “—” for what has no meaning. */
export function seconds(number: number | null | undefined): string {
  return number === null || number === undefined ? NOTHING : formatDuration(number * 1000);
}

export type TimeClass =
  | 'production' | 'minor_stop' | 'unplanned_stop' | 'setup' | 'blocked' | 'planned_stop' | 'unknown' | 'not_scheduled';

/** The classes of time in the order in which they are listed, with the words for them. */
export const CLASSES: readonly { id: TimeClass; label: string }[] = [
  { id: 'production', label: 'Production' },
  { id: 'minor_stop', label: 'Minor stop' },
  { id: 'unplanned_stop', label: 'Stop' },
  { id: 'setup', label: 'Setup' },
  { id: 'blocked', label: 'Blocked' },
  { id: 'planned_stop', label: 'Planned stop' },
  { id: 'unknown', label: 'Unknown' },
  { id: 'not_scheduled', label: 'Not scheduled' },
];

/** The word for a class; a newer server may know some that this page does not. */
export function className(id: string): string {
  return CLASSES.find((each) => each.id === id)?.label ?? id;
}

const STATES: Readonly<Record<string, Shown>> = {
  running: { text: 'running', icon: 'running', tone: 'good' },
  idle: { text: 'idle', icon: 'stopped', tone: 'plain' },
  setup: { text: 'setup', icon: 'waiting', tone: 'plain' },
  down: { text: 'down', icon: 'bad', tone: 'bad' },
  planned: { text: 'planned stop', icon: 'paused', tone: 'plain' },
  blocked: { text: 'blocked', icon: 'paused', tone: 'warning' },
  unknown: { text: 'state unknown', icon: 'warning', tone: 'warning' },
};

/** A state of the time model as word, icon and tone. */
export function kpiState(state: string): Shown {
  return STATES[state] ?? { text: state, icon: 'plain', tone: 'plain' };
}

/** A piece of the timeline with its end, ms. */
export interface Piece {
  start: number;
  end: number;
  name: string;
  reason: string;
}

/** The columns of a timeline as pieces. */
export function pieces(timeline: Timeline): Piece[] {
  return timeline.starts.map((start, place) => ({
    start,
    end: timeline.starts[place + 1] ?? timeline.until,
    name: timeline.classes[place] ?? 'unknown',
    reason: timeline.reasons[place] ?? '',
  }));
}

/** How long each class lasted, in the order of the legend; those that did not happen are left out. */
export function lasted(all: readonly Piece[]): { id: string; label: string; time: number }[] {
  const times = new Map<string, number>();
  for (const { name, start, end } of all) times.set(name, (times.get(name) ?? 0) + end - start);
  const known = CLASSES.filter(({ id }) => times.has(id));
  const others = [...times.keys()].filter((id) => CLASSES.every((each) => each.id !== id));
  return [...known, ...others.map((id) => ({ id, label: id }))].map(({ id, label }) => ({ id, label, time: times.get(id) ?? 0 }));
}

/** What people call a reason: its title, or the last level of its path. */
export function reasonTitle(path: string, titles: Readonly<Record<string, string>>): string {
  if (path === '') return 'No reason given';
  return titles[path] ?? path.split('/').at(-1) ?? path;
}

/** A line of a Pareto table. */
export interface Line {
  path: string;
  amount: number;
  count: number;
}

const MOST = 8;

/** The largest first; what is behind the eighth is summed up under the path `…`. */
export function pareto(lines: readonly Line[]): Line[] {
  const sorted = lines.filter(({ amount, count }) => amount > 0 || count > 0).sort((a, b) => b.amount - a.amount || b.count - a.count);
  if (sorted.length <= MOST) return sorted;
  const rest = sorted.slice(MOST - 1);
  const sum = (of: (line: Line) => number): number => rest.reduce((total, line) => total + of(line), 0);
  return [...sorted.slice(0, MOST - 1), { path: '…', amount: sum(({ amount }) => amount), count: sum(({ count }) => count) }];
}

/** Stops by reason, longest first. */
export function lossLines(losses: Readonly<Record<string, Loss>>): Line[] {
  return pareto(Object.entries(losses).map(([path, loss]) => ({ path, amount: loss.seconds, count: loss.count })));
}

/** Scrap by reason, most first. */
export function scrapLines(scraps: Readonly<Record<string, number>>): Line[] {
  return pareto(Object.entries(scraps).map(([path, amount]) => ({ path, amount, count: 0 })));
}

/** What to know beside the figures: a line for the shift lead, and what to do for the engineer. */
export interface Caution {
  text: string;
  detail: string;
  /** Lines for the plant file. */
  paste?: string;
}

/** A value as a key of YAML: quoted where it could be taken for something else. */
export function yamlKey(value: string): string {
  const plain = /^(?:[A-Za-z_][\w-]*|\d+)$/.test(value) && !/^(?:true|false|yes|no|on|off|y|n|null)$/i.test(value);
  return plain ? value : JSON.stringify(value);
}

/** What to write into the plant file so that a machine's values of state are known. */
export function statesToPaste(machine: string, values: readonly string[]): string {
  const states = values.map((value) => `      ${yamlKey(value)}: running`);
  return ['machines:', `  - id: ${machine}`, '    states:   # or idle, setup, down,', '              # planned, blocked', ...states].join('\n');
}

/** How much of the time is known, where it is less than all of it. */
export function coverageCaution(record: KpiRecord): Caution | null {
  const { coverage, oee_low: low, oee_high: high } = record;
  if (coverage === null || coverage >= SURE) return null;
  const bounds = low === null || high === null ? '' : ` The OEE of all of it lies between ${percent(low)} and ${percent(high)}.`;
  const unknown = record.seconds['unknown'] ?? 0;
  const uncounted = record.uncounted_seconds ?? 0;
  const left: string[] = [];
  if (unknown > 0 || uncounted === 0) left.push(`${seconds(unknown)} without data or with an unknown state are left out, not counted as a stop.`);
  if (uncounted > 0) left.push(`Of ${seconds(uncounted)} of production nothing is known of the counter: left out of performance and OEE, not counted as time in which nothing was made.`);
  return { text: `Only ${percent(coverage)} of the planned time is known.${bounds}`, detail: left.join(' ') };
}

/** How much is known, for a line below a figure; '' where it is all of it. */
export function knownShare(record: Pick<KpiRecord, 'coverage' | 'availability' | 'oee' | 'uncounted_seconds'>): string {
  const { coverage, availability, oee, uncounted_seconds: uncounted } = record;
  if (coverage === null || coverage >= SURE) return '';
  if (coverage === 0 && availability === null) return 'nothing is known';
  return coverage === 0 || (oee === null && (uncounted ?? 0) > 0) ? 'units are not known' : `${percent(coverage)} known`;
}

/** Everything about a record that makes its figures less than they seem, each with what to do. */
export function cautions(record: KpiRecord): Caution[] {
  const found: Caution[] = [];
  const states = Object.entries(record.unknown_states ?? {});
  if (states.length > 0) {
    const values = states.map(([value, count]) => `“${value}” (${counted(count, 'time')})`).join(', ');
    found.push({
      text: `The machine gave ${states.length === 1 ? 'a state' : 'states'} that nobody explained: ${values}`,
      detail: `Such time counts as unknown. Say in the plant file what ${states.length === 1 ? 'it means' : 'they mean'}: add to the states of ${record.machine}`,
      paste: statesToPaste(record.machine, states.map(([value]) => value)),
    });
  }
  const covered = coverageCaution(record);
  if (covered !== null) found.push(covered);
  if (record.performance !== null && record.performance > 1) {
    found.push({
      text: `Performance is ${percent(record.performance)}: the machine is faster than its ideal cycle`,
      detail: 'The ideal cycle in the plant file is too long (ideal_cycle, or products). The figure is shown as it is.',
    });
  }
  if ((record.without_ideal ?? 0) > 0) {
    found.push({
      text: `${counted(record.without_ideal ?? 0, 'unit')} without an ideal cycle: performance and OEE cannot be told`,
      detail: `Give ${record.machine} an ideal_cycle in the plant file, or its product one under products.`,
    });
  }
  if ((record.from_the_future ?? 0) > 0) {
    found.push({
      text: `${counted(record.from_the_future ?? 0, 'sample')} came with a time of the future`,
      detail: 'Set the clock of the PLC, or of this computer.',
    });
  }
  return found;
}

/** Whether figures are older than they should be, at a time of the server's clock. */
export function isOld(figures: Pick<LiveFigures, 'until'>, now: number): boolean {
  return figures.until === null || now - figures.until > OLD;
}

/** How machines make a line, for people; the bottleneck stands in the formula. */
export function madeOf(line: Pick<Whole, 'level' | 'policy' | 'machines' | 'lines'>, record: WindowRecord | null, named: (machine: string) => string): string {
  if (line.level !== 'line') return `sum of ${counted(line.lines.length, 'line')}`;
  if (line.policy === 'sum') return `sum of ${counted(line.machines.length, 'machine')}`;
  if (line.policy === 'first_down') return `stands with the first of ${counted(line.machines.length, 'machine')}`;
  const machine = /\/line: bottleneck (.+)$/.exec(record?.formula ?? '')?.[1];
  return machine === undefined ? 'as its bottleneck' : `as its bottleneck ${named(machine)}`;
}

/** The machines that a line stood for, the longest first. */
export function stoodFor(lost: Readonly<Record<string, Loss>>): { machine: string; seconds: number; count: number }[] {
  return Object.entries(lost)
    .map(([machine, { seconds: time, count }]) => ({ machine, seconds: time, count }))
    .filter(({ seconds: time }) => time > 0)
    .sort((a, b) => b.seconds - a.seconds);
}

function isUnknown({ coverage, availability, good, scrap, was }: KpiRecord): boolean {
  return coverage === 0 && availability === null && good === 0 && scrap === 0 && was === undefined;
}

/** Windows in their order; those beside each other of which nothing is known become one (before the plant's first start). */
export function unknownFolded(records: readonly KpiRecord[]): KpiRecord[] {
  const found: KpiRecord[] = [];
  for (const record of records) {
    const before = found.at(-1);
    if (before !== undefined && before.end === record.start && isUnknown(before) && isUnknown(record)) {
      found[found.length - 1] = { ...before, end: record.end };
    } else found.push(record);
  }
  return found;
}
