/** Labels of the time axis: as much of date and time as the distance between two of them needs. */

import { formatNumber, grouped } from '../format';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** A label of the value axis: as many decimals as the distance between two labels needs. */
export function formatScale(value: number, step: number): string {
  let decimals = 0;
  while (decimals < 9 && Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6) decimals += 1;
  const size = Math.abs(value);
  if (size >= 1e9 || (size > 0 && size < 1e-6)) return formatNumber(value);
  return grouped(value.toFixed(decimals)).replace(/^-(?=.*[1-9])/, '−').replace(/^-/, '');
}

/** Distances at which labels may stand, ms. */
export const STEPS: number[] = [
  ...[1, 5, 10, 50, 100, 500],
  ...[1, 2, 5, 10, 15, 30].map((seconds) => seconds * 1000),
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE),
  ...[1, 2, 3, 6, 12].map((hours) => hours * 60 * MINUTE),
  ...[1, 2, 5, 7, 14, 30, 60, 90].map((days) => days * DAY),
];

/** The label at a time (ms UTC, shown in this machine's zone) where labels stand `step` ms apart. */
export function formatTick(time: number, step: number): string {
  const date = new Date(time);
  const two = (number: number) => String(number).padStart(2, '0');
  const day = `${date.getDate()} ${MONTHS[date.getMonth()] ?? ''}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (step >= DAY) return day;
  if (clock === '00:00' && date.getSeconds() === 0) return day;
  return step >= MINUTE ? clock : `${clock}:${two(date.getSeconds())}`;
}
