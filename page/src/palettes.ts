/** How well the colours of each face explain the pixels of a photo; part of `owners.ts`. */

import type { Labelled } from "./owners.ts";
import type { Picture } from "./resample.ts";

// Groups with the same number share their histogram: head, hair, neck, clothes.
const PALETTES = [0, 1, 0, 2] as const;
const NUM_PALETTES = 3;
const BINS = 16;
const COLOURS = BINS ** 3;
const FEW = 20;
const UNSEEN = 2e-3;
const WEIGHT = 3;
const PASSES = 3;

/**
 * Scores to which those of each face's colours are added.
 *
 * @param averaged groups whose colours' scores are averaged over a square.
 * @param area the side of that square in pixels.
 */
export function histogramScores(
  pixels: Labelled,
  photo: Picture<Uint8Array>,
  scores: readonly Float32Array[],
  averaged: readonly number[],
  area: number,
): Float32Array[] {
  const count = pixels.indices.length;
  const bins = Int32Array.from(pixels.indices, (index, i) => {
    const [l, a, b] = lab(photo.data, index * 3);
    const bin = (l * BINS + a) * BINS + b;
    return PALETTES[pixels.groups[i]] * COLOURS + bin;
  });
  const radius = Math.round(area / 2);
  let total = scores;
  for (let pass = 0; pass < PASSES; pass++) {
    const tables = scores.map(() => new Float32Array(NUM_PALETTES * COLOURS));
    for (let i = 0; i < count; i++) {
      const highest = Math.max(...total.map((own) => own[i]));
      const shares = total.map((own) => Math.exp(own[i] - highest));
      const sum = shares.reduce((a, b) => a + b, 0);
      shares.forEach((share, face) => (tables[face][bins[i]] += (share / sum) ** 2));
    }
    total = tables.map((table, face) => {
      const likelihoods = logarithms(blurred(table));
      const evidence = Float32Array.from(bins, (bin) => likelihoods[bin]);
      average(pixels, evidence, averaged, radius);
      return evidence.map((value, i) => scores[face][i] + WEIGHT * value);
    });
  }
  return [...total];
}

/** Logarithms of the likelihoods of colours, by their numbers in each palette. */
function logarithms(table: Float32Array): Float32Array {
  const sums = Array.from({ length: NUM_PALETTES }, (_, palette) =>
    table.subarray(palette * COLOURS, (palette + 1) * COLOURS).reduce((a, b) => a + b, 0),
  );
  return table.map((value, i) => Math.log(value / (sums[Math.floor(i / COLOURS)] + FEW) + UNSEEN));
}

/** Histograms smoothed over neighbouring bins. */
function blurred(table: Float32Array): Float32Array {
  for (const step of [BINS * BINS, BINS, 1]) {
    table = table.map((value, i) => {
      const at = Math.floor(i / step) % BINS;
      const before = at > 0 ? table[i - step] : value;
      const after = at < BINS - 1 ? table[i + step] : value;
      return 0.5 * value + 0.25 * (before + after);
    });
  }
  return table;
}

/** Replaces the values of some groups by their mean over a square, within the group. */
function average(
  { size: { width, height }, indices, groups }: Labelled,
  values: Float32Array,
  averaged: readonly number[],
  radius: number,
): void {
  const places = new Int32Array(width * height).fill(-1);
  indices.forEach((index, i) => (places[index] = i));
  const before = values.slice();
  // Beyond an edge lies the mirror image, without the edge itself.
  const mirrored = (at: number, size: number) =>
    Math.min(Math.abs(at < size ? at : 2 * (size - 1) - at), size - 1);
  indices.forEach((index, i) => {
    if (!averaged.includes(groups[i])) return;
    const [x, y] = [index % width, Math.floor(index / width)];
    let [sum, count] = [0, 0];
    for (let row = y - radius; row <= y + radius; row++) {
      for (let column = x - radius; column <= x + radius; column++) {
        const other = places[mirrored(row, height) * width + mirrored(column, width)];
        if (other < 0 || groups[other] !== groups[i]) continue;
        sum += before[other];
        count++;
      }
    }
    values[i] = sum / count;
  });
}

/** The bins of a colour in CIELAB, as OpenCV has it in bytes, and stretched in a and b. */
function lab(data: Uint8Array, at: number): [number, number, number] {
  const [r, g, b] = [0, 1, 2].map((i) => linear(data[at + i]));
  const x = curve((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.950456);
  const y = curve(0.212671 * r + 0.71516 * g + 0.072169 * b);
  const z = curve((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.088754);
  const stretched = (value: number) => 2 * Math.round(value + 128) - 128;
  return [
    bin(Math.round((116 * y - 16) * 2.55)),
    bin(stretched(500 * (x - y))),
    bin(stretched(200 * (y - z))),
  ];
}

function bin(value: number): number {
  return Math.floor((Math.min(Math.max(value, 0), 255) * BINS) / 256);
}

function linear(value: number): number {
  const share = value / 255;
  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
}

function curve(value: number): number {
  return value > 0.008856 ? Math.cbrt(value) : 7.787 * value + 16 / 116;
}
