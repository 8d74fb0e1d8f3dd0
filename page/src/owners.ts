/**
 * Which of several overlapping people each labelled pixel of a photo belongs to; in Python,
 * `faces/owners.py`, where the method and its constants are explained.
 */

import { apply, round, type Matrix, type Size } from "./geometry.ts";
import { histogramScores } from "./palettes.ts";
import { shrink, type Picture } from "./resample.ts";
import { watershed } from "./watershed.ts";

const PHOTO_SIDE = 512;
const FRAME_SIDE = 80;
const COARSE = 2;
const [HEAD, HAIR, NECK, CLOTH] = [0, 1, 2, 3];
const GROUPS: Readonly<Record<string, number>> = {
  hair: HAIR, neck: NECK, necklace: NECK, cloth: CLOTH,
};
const PIVOT = 0.35;
const LEAN = 0.25;
const SOFT = 0.08;
const HIDDEN = 0.85;
const LOWER = 0.3;
const AREA = 0.06;
const MARGIN = 1;

/** A number for each pixel. */
export interface Grid extends Size {
  readonly data: Int16Array;
}

/** The labelled pixels of an image, by their index, and the group of each. */
export interface Labelled {
  readonly size: Size;
  readonly indices: Int32Array;
  readonly groups: Int16Array;
}

/**
 * The face to which each pixel belongs.
 *
 * @param photo red, green and blue.
 * @param labels class ids of all faces together.
 * @param matrices frame -> photo of each face.
 * @returns index of a face; -1 for background.
 */
export function assignOwners(
  photo: Picture<Uint8Array>,
  labels: Uint8Array,
  matrices: readonly Matrix[],
  frameSize: number,
  classes: readonly string[],
): Int16Array {
  const groupOf = classes.map((name, id) => (id === 0 ? -1 : (GROUPS[name] ?? HEAD)));
  const groups = { ...sizeOf(photo), data: Int16Array.from(labels, (id) => groupOf[id]) };
  if (matrices.length < 2) return groups.data.map((group) => (group < 0 ? -1 : 0));
  const sides = matrices.map(([a, , , d]) => Math.hypot(a, d));
  const side = median(sides) * frameSize;
  const longest = Math.max(photo.width, photo.height);
  const scale = Math.min(1, PHOTO_SIDE / longest, FRAME_SIDE / side);
  const [fine, fineGroups] = resized(photo, groups, scale);
  const [coarse, coarseGroups] = resized(photo, groups, scale / COARSE);
  const pixels = labelled(coarseGroups);
  if (pixels.indices.length === 0) { // too few to be seen in a copy
    const all = labelled(groups);
    return image(all, best(templateScores(all, matrices, frameSize)), -1);
  }
  const frames = matrices.map((matrix) => matrix.map((v) => (v * scale) / COARSE));
  const templates = templateScores(pixels, frames as unknown as Matrix[], frameSize);
  const window = ((AREA * scale) / COARSE) * side;
  const scores = histogramScores(pixels, coarse, templates, [HAIR, CLOTH], window);
  const seeds = spread(
    { ...sizeOf(coarse), data: seedsOf(pixels, scores) }, coarseGroups, fineGroups,
  );
  const owners = { ...sizeOf(fine), data: flooded(fine, seeds) };
  return spread(owners, fineGroups, groups);
}

/** Assigns background to the face of the nearest labelled pixel. */
export function extendOwners(owners: Int16Array, size: Size): Int16Array {
  const scale = Math.min(1, PHOTO_SIDE / Math.max(size.width, size.height));
  const whole = { ...sizeOf(size), data: owners };
  let small = nearestSize(whole, scaled(size, scale));
  if (!small.data.some((owner) => owner >= 0)) small = whole;
  if (!small.data.some((owner) => owner >= 0)) return new Int16Array(owners.length);
  const known = { ...small, data: small.data.map((owner) => (owner < 0 ? -1 : 0)) };
  const extended = spread(small, known, { ...whole, data: new Int16Array(owners.length) });
  return extended.map((owner, i) => (owners[i] < 0 ? owner : owners[i]));
}

function labelled({ width, height, data }: Grid): Labelled {
  const indices: number[] = [];
  data.forEach((group, i) => group >= 0 && indices.push(i));
  return {
    size: { width, height },
    indices: Int32Array.from(indices),
    groups: Int16Array.from(indices, (i) => data[i]),
  };
}

/** How well each face's template explains each pixel: for each face a number for each pixel. */
function templateScores(
  { size, indices, groups }: Labelled,
  frames: readonly Matrix[],
  frameSize: number,
): Float32Array[] {
  const middle = (frameSize - 1) / 2;
  const centres = frames.map((frame) => apply(frame, [middle, middle]));
  const sides = frames.map(([a, , , d]) => Math.hypot(a, d) * frameSize);
  const axes = frames.map(([a, , , d]) => [a / Math.hypot(a, d), d / Math.hypot(a, d)] as const);
  const upright = [0, 1].map((i) => mean(axes.map((axis) => axis[i])));
  const scores: Float32Array[] = [];
  const hidden: Float32Array[] = [];
  frames.forEach((_, face) => {
    const [axis, side, [originX, originY]] = [axes[face], sides[face], centres[face]];
    // Whoever is turned further from the others than a neck allows is turned with the body.
    const bent = axis[0] * upright[0] + axis[1] * upright[1] > 0.5;
    const leaning = axis.map((v, i) => (bent ? LEAN * v + (1 - LEAN) * upright[i] : v));
    const length = Math.hypot(...leaning);
    const [leanX, leanY] = [leaning[0] / length, leaning[1] / length];
    const own = new Float32Array(indices.length);
    const behind = new Float32Array(indices.length);
    indices.forEach((index, i) => {
      let x = ((index % size.width) - originX) / side;
      let y = (Math.floor(index / size.width) - originY) / side;
      const head = [axis[0] * x + axis[1] * y, axis[0] * y - axis[1] * x] as const;
      x += PIVOT * axis[1];
      y -= PIVOT * axis[0];
      const body = [leanX * x + leanY * y, leanX * y - leanY * x + PIVOT] as const;
      const [outside, silhouette] = distances(groups[i], head, body);
      own[i] = -Math.max(outside, 0) / SOFT;
      behind[i] = Math.log(1 - HIDDEN * Math.min(Math.max(0.5 - silhouette / (4 * SOFT), 0), 1));
    });
    scores.push(own);
    hidden.push(behind);
  });
  const unit = median(sides);
  const depths = centres.map(([x, y]) => (-upright[1] * x + upright[0] * y) / unit);
  return scores.map((own, face) =>
    own.map((score, i) => {
      hidden.forEach((behind, other) => {
        if (other === face) return;
        score += behind[i] / (1 + Math.exp((depths[face] - depths[other]) / LOWER));
      });
      return score;
    }),
  );
}

/** Distances of a pixel from the template of its group, and from the silhouette; negative inside. */
function distances(
  group: number,
  head: readonly [number, number],
  [u, v]: readonly [number, number],
): [number, number] {
  const side = Math.abs(u);
  const hair = capsule(...head, -0.12, 0.15, 0.38);
  const neck = capsule(u, v, 0.35, 0.75, 0.24);
  const shoulders = 0.6 + 0.28 * Math.min(side, 1) ** 2;
  const cloth = Math.max(shoulders - v, side - 0.85 - 0.05 * Math.max(v - 1, 0));
  // Hair that falls to the chest is rarer than hair above the chin.
  const chest = 0.1 * Math.min(Math.max(v - 0.4, 0), 0.6);
  const long = Math.max(capsule(u, v, 0.2, 0.9, 0.36), 0) + 0.05 + chest;
  const outside = [hair + 0.08, Math.min(hair, long), neck, cloth][group];
  return [outside, Math.min(hair, neck, cloth)];
}

/** The distance from an upright capsule around u = 0. */
function capsule(u: number, v: number, top: number, bottom: number, radius: number): number {
  return Math.hypot(u, v - Math.min(Math.max(v, top), bottom)) - radius;
}

/** 2 face + 1 where the best face is certain, else 2 face; -1 for background. */
function seedsOf(pixels: Labelled, scores: readonly Float32Array[]): Int16Array {
  const first = best(scores);
  const faces = image(pixels, first, -1);
  const { width, height } = pixels.size;
  const seeds = new Int16Array(faces.length).fill(-1);
  pixels.indices.forEach((index, i) => {
    const [x, y] = [index % width, Math.floor(index / width)];
    let inner = true;
    for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
      for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
        const other = faces[row * width + column];
        if (other >= 0 && other !== first[i]) inner = false;
      }
    }
    const others = scores.filter((_, face) => face !== first[i]).map((own) => own[i]);
    const certain = inner && scores[first[i]][i] - Math.max(...others) > MARGIN;
    seeds[index] = 2 * first[i] + Number(certain);
  });
  return seeds;
}

/** Faces, -1 for background: a watershed spreads those that are certain. */
function flooded(photo: Picture<Uint8Array>, seeds: Int16Array): Int16Array {
  // Background is certain, too; its number is 1.
  const markers = Int32Array.from(seeds, (seed) => (seed & 1 ? (seed >> 1) + 2 : 0));
  const found = watershed(photo, markers);
  // Lines between regions, and what only background surrounds.
  return seeds.map((seed, i) => (found[i] < 2 ? seed >> 1 : found[i] - 2));
}

/**
 * An image enlarged with the values of the nearest pixels of the same group.
 *
 * @param groups the group of each pixel, -1 for background.
 * @param wanted groups at the size of the result.
 */
function spread(values: Grid, groups: Grid, wanted: Grid): Int16Array {
  const result = new Int16Array(wanted.data.length).fill(-1);
  for (const group of [HEAD, HAIR, NECK, CLOTH]) {
    if (!wanted.data.includes(group)) continue;
    const alike = groups.data.includes(group);
    const nearest = nearestOf(groups, (other) => (alike ? other === group : other >= 0));
    const columns = nearestPlaces(values.width, wanted.width);
    const rows = nearestPlaces(values.height, wanted.height);
    let to = 0;
    for (const row of rows) {
      for (const column of columns) {
        if (wanted.data[to] === group) {
          result[to] = values.data[nearest[row * values.width + column]];
        }
        to++;
      }
    }
  }
  return result;
}

// Steps of a distance transform by a mask of 5 x 5: right, down, and the distance.
const STEPS = [
  [-1, -2, 2.1969], [1, -2, 2.1969], [-2, -1, 2.1969], [-1, -1, 1.4], [0, -1, 1], [1, -1, 1.4],
  [2, -1, 2.1969], [-1, 0, 1],
] as const;

/** For each pixel the index of the nearest one whose value is known. */
function nearestOf({ width, height, data }: Grid, isKnown: (value: number) => boolean): Int32Array {
  const distance = Float32Array.from(data, (value) => (isKnown(value) ? 0 : Infinity));
  const nearest = Int32Array.from(data, (_, i) => i);
  const visit = (x: number, y: number, sign: number) => {
    const at = y * width + x;
    for (let step = 0; step < STEPS.length; step++) { // Iterators would take most of the time.
      const length = STEPS[step][2];
      const column = x + sign * STEPS[step][0];
      const row = y + sign * STEPS[step][1];
      if (column < 0 || row < 0 || column >= width || row >= height) continue;
      const from = row * width + column;
      if (distance[from] + length >= distance[at]) continue;
      distance[at] = distance[from] + length;
      nearest[at] = nearest[from];
    }
  };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) visit(x, y, 1);
  for (let y = height; y--; ) for (let x = width; x--; ) visit(x, y, -1);
  return nearest;
}

/** A photo and its groups at another scale. */
function resized(photo: Picture<Uint8Array>, groups: Grid, scale: number) {
  const size = scaled(photo, scale);
  return [shrink(photo, size) as Picture<Uint8Array>, nearestSize(groups, size)] as const;
}

function scaled({ width, height }: Size, scale: number): Size {
  return { width: Math.max(round(scale * width), 1), height: Math.max(round(scale * height), 1) };
}

function nearestSize({ width, height, data }: Grid, size: Size): Grid {
  const columns = nearestPlaces(width, size.width);
  const rows = nearestPlaces(height, size.height);
  const found = rows.flatMap((row) => columns.map((column) => data[row * width + column]));
  return { ...sizeOf(size), data: Int16Array.from(found) };
}

function nearestPlaces(long: number, short: number): number[] {
  return Array.from({ length: short }, (_, i) => Math.min(Math.floor((i * long) / short), long - 1));
}

/** An image of values of the labelled pixels. */
function image({ size, indices }: Labelled, values: Int16Array, outside: number): Int16Array {
  const data = new Int16Array(size.width * size.height).fill(outside);
  indices.forEach((index, i) => (data[index] = values[i]));
  return data;
}

/** The face of the highest score, the first of several. */
function best(scores: readonly Float32Array[]): Int16Array {
  return Int16Array.from(scores[0], (_, i) =>
    scores.reduce((first, own, face) => (own[i] > scores[first][i] ? face : first), 0),
  );
}

function sizeOf({ width, height }: Size): Size {
  return { width, height };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
