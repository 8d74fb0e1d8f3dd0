/**
 * Class scores of a frame, resampled to the photo's pixels. Scores are resampled, not labels, so that
 * borders have the photo's resolution; in Python, `inference/resampling.py`
 * and `merging.py`.
 */

import {
  apply, determinant, footprint, fromCut, invert, wideFrame,
  type Area, type Matrix, type Size, type WideFrame,
} from "./geometry.ts";
import { pull, type Picture } from "./resample.ts";

/** Distances below the centre of a face count less, for a body reaches downward. */
const BODY = 0.8;

/** A channel for each pixel, and the scores that it was chosen by. */
interface Scored {
  readonly labels: Uint8Array;
  readonly scores: Picture<Float32Array>;
}

/** The output of the network for a frame: a class for each pixel, and the scores of the classes. */
export interface FrameParse extends Scored {
  readonly wide: WideParse | null;
}

/** The output of the network for the wide frame: scores, of which `ids` are the classes. */
export interface WideParse {
  readonly place: WideFrame;
  readonly scores: Picture<Float32Array>;
  readonly ids: readonly number[];
}

/** Labels of an area of the photo. */
interface Piece {
  readonly area: Area;
  readonly labels: Uint8Array;
}

/** One face of a photo: where its frame is (frame -> photo), and its classes in an area. */
export interface Face extends Piece {
  readonly matrix: Matrix;
  /** The side of the frame in its own pixels. */
  readonly side: number;
}

/** Carries a frame's classes to the photo, and around it those of the wide frame. */
export function faceOfFrame(parse: FrameParse, matrix: Matrix, photo: Size): Face {
  const side = parse.scores.width;
  const inner = inPhoto(parse, matrix, photo);
  if (!parse.wide) return { matrix, side, ...inner };
  const { place, scores, ids } = parse.wide;
  const wide = { labels: bestOf(scores), scores };
  const { area, labels } = inPhoto(wide, wideFrame(matrix, side, place), photo);
  const outer = { area, labels: labels.map((channel) => ids[channel]) };
  lay(inner, outer, matrix, side);
  return { matrix, side, ...outer };
}

/** Class ids of all faces; where several have one, that of the nearest in units of its size. */
export function merged(faces: readonly Face[], photo: Size): Uint8Array {
  const labels = new Uint8Array(photo.width * photo.height);
  const nearest = new Float32Array(labels.length).fill(Infinity);
  for (const { matrix, side, area, labels: own } of faces) {
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
      }
    }
  }
  return labels;
}

/** Labels of a frame in the pixels of the photo that it covers. */
function inPhoto(scored: Scored, matrix: Matrix, photo: Size): Piece {
  const area = footprint(matrix, scored.scores, photo);
  const toFrame = fromCut(invert(matrix), area);
  const size = { width: area.right - area.left, height: area.bottom - area.top };
  const coarser = determinant(matrix) < 1;
  const labels = coarser
    ? bestOf(pull(scored.scores, toFrame, size, background(scored.scores.channels)))
    : between(scored, toFrame, size);
  return { area, labels };
}

/** Lays labels of a frame over those around it, up to half a pixel from its outermost pixels. */
function lay(inner: Piece, outer: Piece, matrix: Matrix, side: number): void {
  const toFrame = invert(matrix);
  const inside = (at: number) => at >= 0.5 && at < side - 1.5;
  const width = outer.area.right - outer.area.left;
  let from = 0;
  for (let y = inner.area.top; y < inner.area.bottom; y++) {
    for (let x = inner.area.left; x < inner.area.right; x++, from++) {
      const [column, row] = apply(toFrame, [x, y]);
      if (!inside(column) || !inside(row)) continue;
      outer.labels[(y - outer.area.top) * width + x - outer.area.left] = inner.labels[from];
    }
  }
}

/**
 * Classes between the frame's pixels. Bilinear scores lie between those of four pixels: a class
 * that is the best of all four is the best between them, so only where they disagree are scores
 * needed.
 */
function between({ labels, scores }: Scored, toFrame: Matrix, size: Size): Uint8Array {
  const { width, height, channels, data } = scores;
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

/** The class of the highest score, the first of several. */
function bestOf({ data, channels, width, height }: Picture): Uint8Array {
  return Uint8Array.from({ length: width * height }, (_, pixel) => {
    let best = 0;
    for (let c = 1; c < channels; c++) {
      if (data[pixel * channels + c] > data[pixel * channels + best]) best = c;
    }
    return best;
  });
}

/** Scores beyond the frame, where all is background. */
function background(channels: number): number[] {
  return Array.from({ length: channels }, (_, c) => (c === 0 ? 1 : 0));
}
