/**
 * Resampling by any affine matrix, to any size: faces out of photos, scores back. What
 * `resample.py` is in Python, where OpenCV does the work.
 */

import { footprint, round, type Matrix, type Size } from "./geometry.ts";

const { fround } = Math; // to 32 bits

/** A picture of any number of channels: rows of pixels, a pixel's channels side by side. */
export interface Picture<Data extends Uint8Array | Float32Array = Uint8Array | Float32Array>
  extends Size {
  readonly data: Data;
  readonly channels: number;
}

/** Red, green, blue and opacity of each pixel. */
export interface Rgba extends Size {
  readonly data: Uint8ClampedArray;
}

/** Red, green and blue of a picture that also has opacities. */
export function opaque({ width, height, data }: Rgba): Picture<Uint8Array> {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return { width, height, channels: 3, data: rgb };
}

/** The picture of planes, one for each channel. */
export function fromPlanes(planes: Float32Array, size: Size): Picture<Float32Array> {
  const pixels = size.width * size.height;
  const channels = planes.length / pixels;
  const data = new Float32Array(planes.length);
  planes.forEach((value, i) => (data[(i % pixels) * channels + Math.floor(i / pixels)] = value));
  return { ...size, channels, data };
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

/**
 * The picture at a smaller size, each pixel the mean of what it covers; computed in the order, and
 * rounded, as OpenCV does, for a detector may be of two minds on which of two places is the better.
 */
export function shrink(picture: Picture, size: Size): Picture {
  if (size.width === picture.width && size.height === picture.height) return picture;
  const { channels } = picture;
  const columns = coverage(picture.width, size.width);
  const rows = coverage(picture.height, size.height);
  const data = empty(picture, size);
  // Of exactly 2 x 2 pixels OpenCV rounds halves up, else to the even number.
  const halves = picture.width === 2 * size.width && picture.height === 2 * size.height;
  const rounded = halves ? Math.round : round;
  const line = new Float32Array(size.width * channels);
  const sums = new Float32Array(line.length);
  let inLine = -1; // the row that `line` holds
  rows.forEach(({ first, weights }, y) => {
    sums.fill(0);
    weights.forEach((weight, i) => {
      if (first + i !== inLine) shrinkRow(picture, first + i, columns, line);
      inLine = first + i;
      for (let k = 0; k < sums.length; k++) sums[k] += fround(weight * line[k]);
    });
    data.set(data instanceof Uint8Array ? sums.map(rounded) : sums, y * sums.length);
  });
  return { ...size, channels, data };
}

/** Writes a row of a picture, made shorter, into `line`. */
function shrinkRow(picture: Picture, row: number, columns: readonly Cover[], line: Float32Array) {
  const { width, channels, data } = picture;
  let to = 0;
  for (const { first, weights } of columns) {
    const start = (row * width + first) * channels;
    for (let c = 0; c < channels; c++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) {
        sum = fround(sum + fround(weights[i] * data[start + i * channels + c]));
      }
      line[to++] = sum;
    }
  }
}

/** What a pixel of a shorter line covers of a longer one: pixels side by side, with weights. */
interface Cover {
  readonly first: number;
  readonly weights: Float32Array;
}

function coverage(long: number, short: number): Cover[] {
  const scale = long / short;
  return Array.from({ length: short }, (_, i) => {
    const [start, end] = [i * scale, Math.min((i + 1) * scale, long)];
    const parts = new Map<number, number>();
    for (let pixel = Math.floor(start); pixel < end; pixel++) {
      const part = Math.min(pixel + 1, end) - Math.max(pixel, start);
      if (part > 1e-3) parts.set(pixel, part / (end - start)); // What is less, OpenCV leaves out.
    }
    return { first: Math.min(...parts.keys()), weights: Float32Array.from(parts.values()) };
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
