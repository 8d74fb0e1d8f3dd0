/** Regions grown from markers to the edges of a photo: Meyer's algorithm, as OpenCV's `watershed`. */

import type { Picture } from "./resample.ts";

const LINE = -1;
const QUEUED = -2;

/**
 * The region of each pixel.
 *
 * @param markers numbers above 0 where regions are known, else 0.
 * @returns the number of a region, or -1 on the lines between them.
 */
export function watershed(photo: Picture<Uint8Array>, markers: Int32Array): Int32Array {
  // A border of one pixel, so that each pixel has four neighbours.
  const width = photo.width + 2;
  const regions = new Int32Array(width * (photo.height + 2)).fill(LINE);
  const inside: number[] = [];
  for (let y = 0; y < photo.height; y++) {
    for (let x = 0; x < photo.width; x++) {
      const at = (y + 1) * width + x + 1;
      inside.push(at);
      regions[at] = markers[y * photo.width + x];
    }
  }
  const colour = (at: number) =>
    ((Math.floor(at / width) - 1) * photo.width + (at % width) - 1) * 3;
  const difference = (one: number, other: number) => {
    const { data } = photo;
    const [a, b] = [colour(one), colour(other)];
    return Math.max(
      Math.abs(data[a] - data[b]),
      Math.abs(data[a + 1] - data[b + 1]),
      Math.abs(data[a + 2] - data[b + 2]),
    );
  };
  const neighbours = [-1, 1, -width, width];
  const queues: number[][] = Array.from({ length: 256 }, () => []);
  const heads = new Int32Array(256);
  for (const at of inside) {
    if (regions[at] !== 0) continue;
    const known = neighbours.filter((step) => regions[at + step] > 0);
    if (known.length === 0) continue;
    queues[Math.min(...known.map((step) => difference(at, at + step)))].push(at);
    regions[at] = QUEUED;
  }
  for (let level = 0; level < 256; ) {
    if (heads[level] === queues[level].length) {
      level++;
      continue;
    }
    const at = queues[level][heads[level]++];
    let region = 0;
    for (const step of neighbours) {
      const other = regions[at + step];
      if (other > 0) region = region === 0 || region === other ? other : LINE;
    }
    regions[at] = region;
    if (region === LINE) continue;
    for (const step of neighbours) {
      if (regions[at + step] !== 0) continue;
      const cost = difference(at, at + step);
      queues[cost].push(at + step);
      level = Math.min(level, cost);
      regions[at + step] = QUEUED;
    }
  }
  return Int32Array.from(inside, (at) => regions[at]);
}
