/**
 * The square around each face that becomes a frame, and the matrices between frame and photo; in
 * Python, `faces/framing.py` and `faces/resample.py`.
 *
 * Points are (x, y); whole numbers are the centres of pixels.
 */

export type Point = readonly [number, number];
/** Corners (x0, y0, x1, y1): the centres of their pixels. */
export type Box = readonly [number, number, number, number];
/** The middles of eye 1 and eye 2, the tip of the nose, and the corners 1 and 2 of the mouth. */
export type Landmarks = readonly [Point, Point, Point, Point, Point];
/** Carries (x, y) to (a x + b y + c, d x + e y + f): [a, b, c, d, e, f]. */
export type Matrix = readonly [number, number, number, number, number, number];

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Where the wide frame of a face lies, with hair and shoulders; in Python, `wide_frame.py`. */
export interface WideFrame {
  /** Its side in its own pixels. */
  readonly size: number;
  /** Its side in sides of the frame. */
  readonly side: number;
  /** How far its centre lies below that of the frame, in sides of the frame. */
  readonly down: number;
}

/** Rows top to bottom and columns left to right; the ends are not in it. */
export interface Area {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

// The framing of CelebAMask-HQ's pictures, as measured in `faces/framing.py`.
const SIDE = 1.587;
const UP = 0.076;

/** The frame of an upright face that has a box from forehead to chin: frame -> photo. */
export function frameAroundBox([x0, y0, x1, y1]: Box, frameSize: number): Matrix {
  const side = (x1 - x0 + y1 - y0) / 2 + 1;
  return frame([(x0 + x1) / 2, (y0 + y1) / 2 - UP * side], [SIDE * side, 0], frameSize);
}

/**
 * The frame of a face, turned upright: the rule by which CelebA-HQ was cut (Karras et al.,
 * Progressive Growing of GANs, 2018, appendix C).
 */
export function frameAroundLandmarks(landmarks: Landmarks, frameSize: number): Matrix {
  const [eye1, eye2, , mouth1, mouth2] = landmarks;
  const eyes = middle(eye1, eye2);
  const mouth = middle(mouth1, mouth2);
  const across: Point = [eye2[0] - eye1[0], eye2[1] - eye1[1]];
  const down: Point = [mouth[0] - eyes[0], mouth[1] - eyes[1]];
  const axis: Point = [across[0] + down[1], across[1] - down[0]];
  const side = Math.max(4 * Math.hypot(...across), 3.6 * Math.hypot(...down));
  const length = Math.hypot(...axis);
  if (length < 1e-6 * side || side < 1) {
    throw new Error("A face was found whose eyes and mouth lie on one point.");
  }
  const centre: Point = [eyes[0] + 0.1 * down[0], eyes[1] + 0.1 * down[1]];
  return frame(centre, [(axis[0] / length) * side, (axis[1] / length) * side], frameSize);
}

/** The box of the upright face in a frame, the inverse of `frameAroundBox`. */
export function boxOfFrame(matrix: Matrix, frameSize: number): Box {
  const half = (frameSize - 1) / 2;
  const [x, y] = apply(matrix, [half, half]);
  const side = (Math.hypot(matrix[0], matrix[3]) * frameSize) / SIDE;
  const [reach, down] = [(side - 1) / 2, UP * side];
  return [x - reach, y + down - reach, x + reach, y + down + reach];
}

/** The part of a frame that a face fills, from forehead to chin: the ends of columns and rows. */
export function faceInFrame(frameSize: number): Area {
  const [half, middle] = [frameSize / SIDE / 2, frameSize / 2];
  const centre = middle + (UP / SIDE) * frameSize;
  return {
    left: Math.round(middle - half),
    top: Math.round(centre - half),
    right: Math.round(middle + half),
    bottom: Math.round(centre + half),
  };
}

/** The wide frame of a frame: wide frame -> photo. */
export function wideFrame(
  matrix: Matrix,
  frameSize: number,
  { size, side, down }: WideFrame,
): Matrix {
  const half = (frameSize - 1) / 2;
  const centre = apply(matrix, [half, half + down * frameSize]);
  return frame(centre, [matrix[0] * frameSize * side, matrix[3] * frameSize * side], size);
}

/** The square with a centre, and a side as long as `axis`, which points to its right. */
function frame(centre: Point, axis: Point, frameSize: number): Matrix {
  const [x, y] = [axis[0] / frameSize, axis[1] / frameSize];
  const half = (frameSize - 1) / 2;
  return [x, -y, centre[0] - (x - y) * half, y, x, centre[1] - (y + x) * half];
}

function middle(a: Point, b: Point): Point {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

export function apply([a, b, c, d, e, f]: Matrix, [x, y]: Point): Point {
  return [a * x + b * y + c, d * x + e * y + f];
}

export function determinant([a, b, , d, e]: Matrix): number {
  return a * e - b * d;
}

/** The matrix that carries back. */
export function invert(matrix: Matrix): Matrix {
  const [a, b, c, d, e, f] = matrix;
  const scale = 1 / determinant(matrix);
  const [p, q, r, s] = [e * scale, -b * scale, -d * scale, a * scale];
  return [p, q, -(p * c + q * f), r, s, -(r * c + s * f)];
}

/** The matrix from a picture that was cut at a pixel, where it was the whole picture's. */
export function fromCut(matrix: Matrix, { left, top }: Area): Matrix {
  const [x, y] = apply(matrix, [left, top]);
  return [matrix[0], matrix[1], x, matrix[3], matrix[4], y];
}

/** The pixels of a picture that another one of some size covers, carried there by a matrix. */
export function footprint(matrix: Matrix, size: Size, within: Size): Area {
  const [x, y] = [size.width - 0.5, size.height - 0.5];
  const corners = ([[-0.5, -0.5], [x, -0.5], [x, y], [-0.5, y]] as const).map((corner) =>
    apply(matrix, corner),
  );
  const xs = corners.map((corner) => corner[0]);
  const ys = corners.map((corner) => corner[1]);
  const left = clamp(Math.floor(Math.min(...xs) + 0.5), 0, within.width);
  const top = clamp(Math.floor(Math.min(...ys) + 0.5), 0, within.height);
  return {
    left,
    top,
    right: clamp(Math.ceil(Math.max(...xs) + 0.5), left, within.width),
    bottom: clamp(Math.ceil(Math.max(...ys) + 0.5), top, within.height),
  };
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** As Python rounds: a half goes to the even number. */
export function round(value: number): number {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}
