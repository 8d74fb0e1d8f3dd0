/**
 * Class scores of a frame, resampled to the photo's pixels. Scores are resampled, not labels, so that
 * borders have the photo's resolution; in Python, `inference/results.py`.
 */

import {
  apply, determinant, footprint, fromCut, invert, type Area, type Matrix, type Size,
} from "./geometry.ts";
import { pull, type Picture } from "./resample.ts";

/** What the network says of a frame: a class for each pixel, and the scores it was chosen by. */
export interface FrameParse {
  readonly labels: Uint8Array;
  readonly scores: Picture<Float32Array>;
}

/** One face of a photo: where its frame is (frame -> photo), and its classes in an area. */
export interface Face {
  readonly matrix: Matrix;
  readonly area: Area;
  readonly labels: Uint8Array;
}

/** Carries a frame's classes to the photo. */
export function faceOfFrame(parse: FrameParse, matrix: Matrix, photo: Size): Face {
  const area = footprint(matrix, parse.scores, photo);
  const toFrame = fromCut(invert(matrix), area);
  const size = { width: area.right - area.left, height: area.bottom - area.top };
  const coarser = determinant(matrix) < 1;
  const labels = coarser
    ? bestOf(pull(parse.scores, toFrame, size, background(parse.scores.channels)))
    : between(parse, toFrame, size);
  return { matrix, area, labels };
}

/** Class ids of all faces, the larger in front. */
export function merged(faces: readonly Face[], photo: Size): Uint8Array {
  const labels = new Uint8Array(photo.width * photo.height);
  const order = [...faces].sort((a, b) => determinant(a.matrix) - determinant(b.matrix));
  for (const { area, labels: own } of order) {
    let from = 0;
    for (let y = area.top; y < area.bottom; y++) {
      for (let x = area.left; x < area.right; x++, from++) {
        if (own[from] > 0) labels[y * photo.width + x] = own[from];
      }
    }
  }
  return labels;
}

/**
 * Classes between the frame's pixels. Bilinear scores lie between those of four pixels: a class
 * that is the best of all four is the best between them, so only where they disagree are scores
 * needed.
 */
function between({ labels, scores }: FrameParse, toFrame: Matrix, size: Size): Uint8Array {
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
