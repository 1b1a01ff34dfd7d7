/** How tags are named where their machine is already known. */

import type { Machine } from './api';

/** The part of a tag behind its machine: `press-1/PV` on the page of press-1 is `PV`. */
export function shortName(tag: string, machine: string): string {
  return tag.startsWith(`${machine}/`) && tag.length > machine.length + 1 ? tag.slice(machine.length + 1) : tag;
}

/** What people call a machine. */
export function machineTitle(machine: Pick<Machine, 'id' | 'title'>): string {
  return machine.title === '' ? machine.id : machine.title;
}
