/** Times of day at the site: shifts and hours are in its time zone, wherever the browser stands. */

const made = new Map<string, Intl.DateTimeFormat>();

function format(zone: string): Intl.DateTimeFormat {
  let found = made.get(zone);
  if (found === undefined) {
    const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const;
    try {
      found = new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone });
    } catch {
      found = new Intl.DateTimeFormat('en-GB', options); // a zone that this browser does not know
    }
    made.set(zone, found);
  }
  return found;
}

/** 06:00 */
export function siteClock(milliseconds: number, zone: string): string {
  return format(zone).format(milliseconds);
}

/** 06:00–14:00 */
export function siteSpan(start: number, end: number, zone: string): string {
  return `${siteClock(start, zone)}–${siteClock(end, zone)}`;
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
