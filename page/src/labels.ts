/**
 * Class scores of a frame, resampled to the photo's pixels. Scores are resampled, not labels, so that
 * borders have the photo's resolution; in Python, `inference/resampling.py`
 * and `merging.py`.
 */

import {
  apply, determinant, faceInFrame, footprint, fromCut, invert, type Area, type Matrix, type Size,
} from "./geometry.ts";
import { pull, type Picture } from "./resample.ts";

/** Distances below the centre of a face count less, for a body reaches downward. */
const BODY = 0.8;
/** How many pixels along the edges of a wide frame have to be labelled for a far frame. */
const REACHING = 4;
/** The share of the square from forehead to chin that a face has, at least. */
const FACE_SHARE = 0.15;
/** Classes that are not in the middle of a face. */
const AROUND: readonly string[] = [
  "background", "hair", "hat", "ear_1", "ear_2", "earring", "neck", "necklace", "cloth",
];
/** Scores are kept in these steps. */
const STEPS = 255;

/** A square of scores in the photo: frame -> photo, and the class that each channel scores. */
export interface Layer<Data extends Uint8Array | Float32Array = Float32Array> {
  readonly scores: Picture<Data>;
  readonly matrix: Matrix;
  readonly ids: readonly number[];
}

/** Labels of an area of the photo. */
interface Piece {
  readonly area: Area;
  readonly labels: Uint8Array;
}

/** One face of a photo: its classes in an area, and the scores that they were chosen by. */
export interface Face extends Piece {
  /** The frame, the wide frame, the far frame, as far as they were parsed; steps of 1/255. */
  readonly layers: readonly Layer<Uint8Array>[];
}

/** All faces of a photo together: for each pixel a class and the face whose scores chose it. */
export interface Merged {
  readonly labels: Uint8Array;
  /** -1 for background. */
  readonly sources: Int16Array;
}

/** Carries the classes of frames to the photo; each frame contains the one before, which counts. */
export function faceOfLayers(layers: readonly Layer[], photo: Size): Face {
  let outer: Piece | null = null;
  for (const layer of [...layers].reverse()) {
    const { area, labels } = inPhoto(layer, layer.matrix, photo);
    const piece = { area, labels: labels.map((channel) => layer.ids[channel]) };
    if (outer) lay(piece, outer, layer);
    outer ??= piece;
  }
  if (!outer) throw new Error("A face needs a frame.");
  return { ...outer, layers: layers.map(stored) };
}

/** The layer with scores in steps of 1/255, which take a quarter of the memory. */
function stored({ scores, matrix, ids }: Layer): Layer<Uint8Array> {
  const data = new Uint8Array(scores.data.length);
  for (let i = 0; i < data.length; i++) data[i] = Math.round(scores.data[i] * STEPS);
  return { scores: { ...scores, data }, matrix, ids };
}

/** Whether classes other than background reach an edge of a wide frame within the photo. */
export function reachesEdge({ scores, matrix }: Layer, photo: Size): boolean {
  const labels = bestOf(scores);
  const last = scores.width - 1;
  let reaching = 0;
  for (let i = 0; i <= last; i++) {
    for (const [column, row] of [[i, 0], [i, last], [0, i], [last, i]] as const) {
      const [x, y] = apply(matrix, [column, row]);
      const inside = x >= 0 && y >= 0 && x <= photo.width - 1 && y <= photo.height - 1;
      if (inside && labels[row * scores.width + column] > 0) reaching++;
    }
  }
  return reaching >= REACHING;
}

/** Whether there is a face in a frame, as far as its labels tell. */
export function showsFace({ scores, ids }: Layer, classes: readonly string[]): boolean {
  const labels = bestOf(scores);
  const { left, top, right, bottom } = faceInFrame(scores.width);
  let found = 0;
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      if (!AROUND.includes(classes[ids[labels[row * scores.width + column]]])) found++;
    }
  }
  return found > FACE_SHARE * (right - left) * (bottom - top);
}

/** Class ids of all faces; where several have one, that of the nearest in units of its size. */
export function merge(faces: readonly Face[], photo: Size): Merged {
  const labels = new Uint8Array(photo.width * photo.height);
  const sources = new Int16Array(labels.length).fill(-1);
  const nearest = new Float32Array(labels.length).fill(Infinity);
  faces.forEach(({ layers: [{ matrix, scores }], area, labels: own }, face) => {
    const side = scores.width;
    const [a, b, c, d, e, f] = invert(matrix);
    const middle = (side - 1) / 2;
    let from = 0;
    for (let y = area.top; y < area.bottom; y++) {
      for (let x = area.left; x < area.right; x++, from++) {
        if (own[from] === 0) continue;
        const right = (a * x + b * y + c - middle) / side;
        const down = (d * x + e * y + f - middle) / side;
        const distance = right ** 2 + (down > 0 ? BODY * down : down) ** 2; // its square
        const pixel = y * photo.width + x;
        if (distance >= nearest[pixel]) continue;
        nearest[pixel] = distance;
        labels[pixel] = own[from];
        sources[pixel] = face;
      }
    }
  });
  return { labels, sources };
}

/** Channels of a frame in the pixels of the photo that it covers. */
function inPhoto({ scores }: Layer, matrix: Matrix, photo: Size): Piece {
  const area = footprint(matrix, scores, photo);
  const toFrame = fromCut(invert(matrix), area);
  const size = sizeOf(area);
  const coarser = determinant(matrix) < 1;
  const labels = coarser
    ? bestOf(pull(scores, toFrame, size, background(scores.channels)))
    : between(scores, toFrame, size);
  return { area, labels };
}

/** Lays labels of a frame over those around it. */
function lay(inner: Piece, outer: Piece, frame: Layer): void {
  const width = outer.area.right - outer.area.left;
  forInside(frame, inner.area, (x, y, from) => {
    outer.labels[(y - outer.area.top) * width + x - outer.area.left] = inner.labels[from];
  });
}

/** Visits the pixels of an area that lie in a frame, half a pixel from its outermost pixels. */
export function forInside(
  { scores, matrix }: Layer<Uint8Array | Float32Array>,
  area: Area,
  visit: (x: number, y: number, index: number) => void,
): void {
  const [a, b, c, d, e, f] = invert(matrix);
  const inside = (at: number) => at >= 0.5 && at < scores.width - 1.5;
  let index = 0;
  for (let y = area.top; y < area.bottom; y++) {
    for (let x = area.left; x < area.right; x++, index++) {
      if (inside(a * x + b * y + c) && inside(d * x + e * y + f)) visit(x, y, index);
    }
  }
}

export function sizeOf({ left, top, right, bottom }: Area): Size {
  return { width: right - left, height: bottom - top };
}

/**
 * Classes between the frame's pixels. Bilinear scores lie between those of four pixels: a class
 * that is the best of all four is the best between them, so only where they disagree are scores
 * needed.
 */
function between(scores: Picture, toFrame: Matrix, size: Size): Uint8Array {
  const { width, height, channels, data } = scores;
  const labels = bestOf(scores);
  const found = new Uint8Array(size.width * size.height);
  const outside = background(channels);
  const label = (x: number, y: number) =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x];
  const score = (x: number, y: number, c: number) =>
    x < 0 || y < 0 || x >= width || y >= height
      ? outside[c]
      : data[(y * width + x) * channels + c];
  for (let row = 0; row < size.height; row++) {
    for (let column = 0; column < size.width; column++) {
      const [x, y] = apply(toFrame, [column, row]);
      const [x0, y0] = [Math.floor(x), Math.floor(y)];
      let best = label(x0, y0);
      if (
        label(x0 + 1, y0) !== best ||
        label(x0, y0 + 1) !== best ||
        label(x0 + 1, y0 + 1) !== best
      ) {
        const [right, below] = [x - x0, y - y0];
        let highest = -Infinity;
        for (let c = 0; c < channels; c++) {
          const value =
            (score(x0, y0, c) * (1 - right) + score(x0 + 1, y0, c) * right) * (1 - below) +
            (score(x0, y0 + 1, c) * (1 - right) + score(x0 + 1, y0 + 1, c) * right) * below;
          if (value > highest) [highest, best] = [value, c];
        }
      }
      found[row * size.width + column] = best;
    }
  }
  return found;
}

/** The channel of the highest score, the first of several. */
function bestOf({ data, channels, width, height }: Picture): Uint8Array {
  const found = new Uint8Array(width * height);
  for (let pixel = 0, start = 0; pixel < found.length; pixel++, start += channels) {
    let best = 0;
    for (let c = 1; c < channels; c++) if (data[start + c] > data[start + best]) best = c;
    found[pixel] = best;
  }
  return found;
}

/** Scores beyond the frame, where all is background. */
function background(channels: number): number[] {
  return Array.from({ length: channels }, (_, c) => (c === 0 ? 1 : 0));
}
