/** OPC quality (OPC Data Access 3.0, 6.8) in the words of the shop floor. */

/** What a quality byte amounts to. */
export type Grade = 'good' | 'uncertain' | 'bad';

const WORDS = new Map<number, string>([
  [0, 'bad'],
  [4, 'wrong configuration'],
  [8, 'not connected'],
  [12, 'device failure'],
  [16, 'sensor failure'],
  [20, 'last known value'],
  [24, 'communication failure'],
  [28, 'out of service'],
  [32, 'waiting for first value'],
  [64, 'uncertain'],
  [68, 'last usable value'],
  [80, 'sensor not accurate'],
  [84, 'outside its limits'],
  [88, 'fewer sources than needed'],
  [192, 'good'],
  [216, 'set by hand'],
]);

/** Good from 192 on, uncertain from 64, bad below. */
export function grade(quality: number): Grade {
  if (quality >= 192) return 'good';
  return quality >= 64 ? 'uncertain' : 'bad';
}

/** The quality in words; limit bits (the lowest two) do not change the meaning. */
export function qualityText(quality: number): string {
  return WORDS.get(quality) ?? WORDS.get(quality & 0xfc) ?? grade(quality);
}
