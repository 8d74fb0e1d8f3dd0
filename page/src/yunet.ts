/**
 * YuNet: where the faces of a photo are. What goes into its network, and what OpenCV's
 * FaceDetectorYN makes of what comes out, with the settings of `detectors.py`.
 *
 * Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research
 * (2023).
 */

import { round, type Landmarks, type Size } from "./geometry.ts";
import { shrink, type Picture } from "./resample.ts";

const SIDE = 640; // The photo's longer side is shrunk to this many pixels.
const SMALLEST = 10; // In narrower strips it sees faces everywhere.
const SCORE = 0.7;
const OVERLAP = 0.3;
const STRIDES = [8, 16, 32] as const;

/** A picture as YuNet's network takes it: planes of blue, green and red, (1, 3, height, width). */
export interface Input extends Size {
  readonly planes: Float32Array;
  /** A pixel's (width, height) in pixels of the photo. */
  readonly scale: readonly [number, number];
}

/** What the network gives, by name: `cls_8`, `obj_8`, `bbox_8`, `kps_8` and so on. */
export type Outputs = Readonly<Record<string, Float32Array>>;

interface Found {
  readonly score: number;
  readonly box: Rectangle;
  readonly landmarks: number[];
}

interface Rectangle extends Size {
  readonly x: number;
  readonly y: number;
}

/** The photo for the network, with sides padded to multiples of 32; null if it is too narrow. */
export function prepare(photo: Picture): Input | null {
  const factor = Math.max(Math.max(photo.width, photo.height) / SIDE, 1);
  const size = {
    width: Math.max(round(photo.width / factor), 1),
    height: Math.max(round(photo.height / factor), 1),
  };
  if (Math.min(size.width, size.height) < SMALLEST) return null;
  const { data } = shrink(photo, size);
  const [width, height] = [Math.ceil(size.width / 32) * 32, Math.ceil(size.height / 32) * 32];
  const planes = new Float32Array(3 * width * height);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < size.height; y++) {
      for (let x = 0; x < size.width; x++) {
        planes[(c * height + y) * width + x] = data[(y * size.width + x) * 3 + 2 - c];
      }
    }
  }
  return { width, height, planes, scale: [photo.width / size.width, photo.height / size.height] };
}

/** The faces in what the network gave, the largest first, in pixels of the photo. */
export function landmarksOf(outputs: Outputs, { width, height, scale }: Input): Landmarks[] {
  const found = STRIDES.flatMap((stride) => atStride(outputs, stride, width, height));
  const kept = withoutOverlaps(found);
  kept.sort((a, b) => b.box.width * b.box.height - a.box.width * a.box.height);
  return kept.map(({ landmarks }) => {
    const [a, b, c, d, e] = [0, 2, 4, 6, 8].map(
      // Whole numbers are the centres of pixels, in the photo as in the smaller one.
      (i) =>
        [(landmarks[i] + 0.5) * scale[0] - 0.5, (landmarks[i + 1] + 0.5) * scale[1] - 0.5] as const,
    );
    return [a, b, c, d, e] as const;
  });
}

function atStride(outputs: Outputs, stride: number, width: number, height: number): Found[] {
  const get = (name: string) => {
    const values = outputs[`${name}_${stride}`];
    if (!values) throw new Error(`The face detector gives no ${name}_${stride}.`);
    return values;
  };
  const [cls, obj, bbox, kps] = [get("cls"), get("obj"), get("bbox"), get("kps")];
  const [columns, rows] = [width / stride, height / stride];
  const found: Found[] = [];
  for (let i = 0; i < columns * rows; i++) {
    const score = Math.sqrt(unit(cls[i]) * unit(obj[i]));
    if (score < SCORE) continue;
    const [column, row] = [i % columns, Math.floor(i / columns)];
    const [w, h] = [Math.exp(bbox[i * 4 + 2]) * stride, Math.exp(bbox[i * 4 + 3]) * stride];
    found.push({
      score,
      box: {
        x: (column + bbox[i * 4]) * stride - w / 2,
        y: (row + bbox[i * 4 + 1]) * stride - h / 2,
        width: w,
        height: h,
      },
      landmarks: Array.from(
        { length: 10 },
        (_, k) => (kps[i * 10 + k] + (k % 2 ? row : column)) * stride,
      ),
    });
  }
  return found;
}

/** Of faces that overlap, the one of the highest score; as OpenCV's NMSBoxes, by whole pixels. */
function withoutOverlaps(found: readonly Found[]): Found[] {
  const kept: Found[] = [];
  for (const candidate of [...found].sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(candidate.box, other.box) <= OVERLAP)) kept.push(candidate);
  }
  return kept;
}

function overlap(first: Rectangle, second: Rectangle): number {
  const [a, b] = [whole(first), whole(second)];
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  const both = Math.max(width, 0) * Math.max(height, 0);
  return both / (a.width * a.height + b.width * b.height - both);
}

function whole({ x, y, width, height }: Rectangle): Rectangle {
  return {
    x: Math.trunc(x),
    y: Math.trunc(y),
    width: Math.trunc(width),
    height: Math.trunc(height),
  };
}

function unit(value: number): number {
  return Math.min(Math.max(value, 0), 1);
}
