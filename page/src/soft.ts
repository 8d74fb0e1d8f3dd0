/**
 * Soft masks: the share of some classes in the scores at each pixel of a photo; in Python,
 * `inference/soft_masks.py`.
 */

import { footprint, fromCut, invert, type Size } from "./geometry.ts";
import { forInside, sizeOf, type Face, type Layer } from "./labels.ts";
import { pull, type Picture } from "./resample.ts";

// Shares up to which a cut-out is transparent, and from which it is opaque.
const [CLEAR, OPAQUE] = [0.1, 0.9];

/**
 * The opacities of a cut-out, 0..255; above 127 exactly where the label is one of the classes.
 *
 * @param sources the face whose scores count at each pixel.
 * @param labels class ids, 0 also for the pixels of people who are not cut out.
 */
export function opacities(
  faces: readonly Face[],
  sources: Int16Array,
  labels: Uint8Array,
  classes: ReadonlySet<number>,
  photo: Size,
): Uint8Array {
  const alpha = new Uint8Array(labels.length);
  faces.forEach(({ layers }, face) => {
    for (const layer of [...layers].reverse()) {
      const area = footprint(layer.matrix, layer.scores, photo);
      const toFrame = fromCut(invert(layer.matrix), area);
      const { data } = pull(planes(layer, classes), toFrame, sizeOf(area), [0, 1]);
      const put = (x: number, y: number, index: number) => {
        const pixel = y * photo.width + x;
        if (sources[pixel] !== face) return;
        alpha[pixel] = opacity(data[2 * index] / data[2 * index + 1], classes.has(labels[pixel]));
      };
      if (layer !== layers.at(-1)) {
        forInside(layer, area, put);
        continue;
      }
      let index = 0;
      for (let y = area.top; y < area.bottom; y++) {
        for (let x = area.left; x < area.right; x++) put(x, y, index++);
      }
    }
  });
  return alpha;
}

/** The opacity at a share of the classes, which may not contradict the label. */
function opacity(share: number, inside: boolean): number {
  // Linear around a half, which becomes 127; low shares far from the classes are not visible.
  const steps = Math.ceil((share - 0.5) * (255 / (OPAQUE - CLEAR)) + 127);
  return inside ? Math.min(Math.max(steps, 128), 255) : Math.min(Math.max(steps, 0), 127);
}

/** The sums of the classes' scores, and of all scores, in a frame. */
function planes(
  { scores, ids }: Layer<Uint8Array>,
  classes: ReadonlySet<number>,
): Picture<Float32Array> {
  const { width, height, channels, data } = scores;
  const wanted = ids.map((id) => classes.has(id));
  const sums = new Float32Array(2 * width * height);
  for (let i = 0; i < data.length; i++) {
    const pixel = Math.floor(i / channels);
    if (wanted[i % channels]) sums[2 * pixel] += data[i] / 255;
    sums[2 * pixel + 1] += data[i] / 255;
  }
  return { width, height, channels: 2, data: sums };
}
