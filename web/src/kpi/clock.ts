/** Times of day at the site: shifts and hours are in its time zone, wherever the browser stands. */

const made = new Map<string, Intl.DateTimeFormat>();

const CLOCK: Intl.DateTimeFormatOptions = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
const SECONDS: Intl.DateTimeFormatOptions = { ...CLOCK, second: '2-digit' };
const DAY: Intl.DateTimeFormatOptions = { weekday: 'short', day: 'numeric', month: 'short' };

function format(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${zone} ${Object.keys(options).join()}`;
  let found = made.get(key);
  if (found === undefined) {
    try {
      found = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone });
    } catch {
      found = new Intl.DateTimeFormat('en-GB', options); // a zone that this browser does not know
    }
    made.set(key, found);
  }
  return found;
}

/** 06:00 */
export function siteClock(milliseconds: number, zone: string): string {
  return format(zone, CLOCK).format(milliseconds);
}

/** 06:00:09 */
export function siteSeconds(milliseconds: number, zone: string): string {
  return format(zone, SECONDS).format(milliseconds);
}

/** Sat, 21 Nov */
export function siteDay(milliseconds: number, zone: string): string {
  return format(zone, DAY).format(milliseconds);
}

/** 06:00–14:00 */
export function siteSpan(start: number, end: number, zone: string): string {
  const last = siteClock(end, zone);
  return `${siteClock(start, zone)}–${last === '00:00' ? '24:00' : last}`;
}

const HOUR = 3_600_000;

/** Marks at full hours of the site between two times, at most some twelve of them, with their share of the way. */
export function hourMarks(start: number, end: number, zone: string): { at: number; text: string }[] {
  const step = Math.max(1, Math.ceil((end - start) / HOUR / 12));
  const found: { at: number; text: string }[] = [];
  // Zones differ from UTC by quarters of an hour at the least.
  for (let time = Math.ceil(start / (HOUR / 4)) * (HOUR / 4); time <= end; time += HOUR / 4) {
    const text = siteClock(time, zone);
    if (text.endsWith(':00') && Number(text.slice(0, 2)) % step === 0) found.push({ at: (time - start) / (end - start), text });
  }
  return found;
}

/** The day before or after, as 2026-11-21. */
export function dayBeside(day: string, by: number): string {
  return new Date(Date.parse(`${day}T12:00:00Z`) + by * 24 * HOUR).toISOString().slice(0, 10);
}
