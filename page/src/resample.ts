/**
 * Resampling by any affine matrix, to any size: faces out of photos, scores back. What
 * `resample.py` is in Python, where OpenCV does the work.
 */

import { footprint, round, type Matrix, type Size } from "./geometry.ts";

/** A picture of any number of channels: rows of pixels, a pixel's channels side by side. */
export interface Picture<Data extends Uint8Array | Float32Array = Uint8Array | Float32Array>
  extends Size {
  readonly data: Data;
  readonly channels: number;
}

/**
 * Looks up where in the picture each pixel of the result comes from. Bilinear; where the result is
 * coarser than the picture, each pixel is the mean of those that it covers.
 *
 * @param picture whole numbers in 0..255 if its data are of bytes, else any.
 * @param matrix similarity, pixels of the result -> pixels of the picture.
 * @param outside a value for each channel beyond the picture's edges.
 */
export function pull(picture: Picture, matrix: Matrix, size: Size, outside: number[]): Picture {
  const scale = Math.sqrt(Math.abs(matrix[0] * matrix[4] - matrix[1] * matrix[3]));
  const margin = Math.ceil(Number(Math.max(scale, 1).toFixed(6)));
  let [source, toSource] = cut(picture, matrix, size, margin);
  if (scale > 1) {
    const small = {
      width: Math.max(round(source.width / scale), 1),
      height: Math.max(round(source.height / scale), 1),
    };
    // Edges stay edges: the centre of pixel i lies at i + 1/2 from the first one's edge.
    const [x, y] = [small.width / source.width, small.height / source.height];
    const [a, b, c, d, e, f] = toSource;
    toSource = [a * x, b * x, (c + 0.5) * x - 0.5, d * y, e * y, (f + 0.5) * y - 0.5];
    source = shrink(source, small);
  }
  return warp(source, toSource, size, outside);
}

/** The part of a picture that a result draws on, never empty, and the matrix to it. */
function cut(picture: Picture, matrix: Matrix, size: Size, margin: number): [Picture, Matrix] {
  const area = footprint(matrix, size, picture);
  const left = Math.max(Math.min(area.left, area.right - 1) - margin, 0);
  const top = Math.max(Math.min(area.top, area.bottom - 1) - margin, 0);
  const width = Math.min(area.right + margin, picture.width) - left;
  const height = Math.min(area.bottom + margin, picture.height) - top;
  const [a, b, c, d, e, f] = matrix;
  const data = empty(picture, { width, height });
  const row = width * picture.channels;
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * picture.channels;
    data.set(picture.data.subarray(start, start + row), y * row);
  }
  return [{ ...picture, data, width, height }, [a, b, c - left, d, e, f - top]];
}

/** The picture at a smaller size, each pixel the mean of what it covers. */
export function shrink(picture: Picture, size: Size): Picture {
  if (size.width === picture.width && size.height === picture.height) return picture;
  const { channels } = picture;
  const columns = coverage(picture.width, size.width);
  const rows = coverage(picture.height, size.height);
  const data = empty(picture, size);
  const whole = data instanceof Uint8Array;
  const line = new Float32Array(picture.width * channels);
  let to = 0;
  for (const covered of rows) {
    line.fill(0);
    for (const { pixel, weight } of covered) {
      const start = pixel * line.length;
      for (let i = 0; i < line.length; i++) line[i] += weight * picture.data[start + i];
    }
    for (const across of columns) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (const { pixel, weight } of across) sum += weight * line[pixel * channels + c];
        data[to++] = whole ? Math.round(sum) : sum;
      }
    }
  }
  return { ...size, channels, data };
}

interface Covered {
  readonly pixel: number;
  readonly weight: number;
}

/** For each pixel of a shorter line the pixels of the longer one that it covers, with weights. */
function coverage(long: number, short: number): Covered[][] {
  const scale = long / short;
  return Array.from({ length: short }, (_, i) => {
    const [start, end] = [i * scale, Math.min((i + 1) * scale, long)];
    const covered: Covered[] = [];
    for (let pixel = Math.floor(start); pixel < end; pixel++) {
      const part = Math.min(pixel + 1, end) - Math.max(pixel, start);
      // What is less than a thousandth comes from rounding.
      if (part > 1e-3) covered.push({ pixel, weight: part / (end - start) });
    }
    return covered;
  });
}

function warp(picture: Picture, matrix: Matrix, size: Size, outside: number[]): Picture {
  const { width, height, channels } = picture;
  const [a, b, c, d, e, f] = matrix;
  const data = empty(picture, size);
  const whole = data instanceof Uint8Array;
  const at = (x: number, y: number, channel: number) =>
    x < 0 || y < 0 || x >= width || y >= height
      ? outside[channel]
      : picture.data[(y * width + x) * channels + channel];
  let to = 0;
  for (let row = 0; row < size.height; row++) {
    for (let column = 0; column < size.width; column++) {
      const [x, y] = [a * column + b * row + c, d * column + e * row + f];
      const [x0, y0] = [Math.floor(x), Math.floor(y)];
      const [right, below] = [x - x0, y - y0];
      for (let channel = 0; channel < channels; channel++) {
        const upper = at(x0, y0, channel) * (1 - right) + at(x0 + 1, y0, channel) * right;
        const lower = at(x0, y0 + 1, channel) * (1 - right) + at(x0 + 1, y0 + 1, channel) * right;
        const value = upper * (1 - below) + lower * below;
        data[to++] = whole ? Math.round(value) : value;
      }
    }
  }
  return { ...size, channels, data };
}

function empty(like: Picture, size: Size): Uint8Array | Float32Array {
  const length = size.width * size.height * like.channels;
  return like.data instanceof Uint8Array ? new Uint8Array(length) : new Float32Array(length);
}
