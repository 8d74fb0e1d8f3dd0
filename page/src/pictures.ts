/**
 * What is shown and downloaded, as pixels: red, green, blue and opacity of each. Label maps hold a
 * class for each pixel of the photo; 0 is background.
 */

import type { Classes } from "./protocol.ts";

export type Pixels = Uint8ClampedArray<ArrayBuffer>;

/** The colours of the classes that are on; elsewhere it is transparent. */
export function overlay(
  labels: Uint8Array,
  colours: Classes["colours"],
  on: ReadonlySet<number>,
): Pixels {
  const table = new Uint8ClampedArray(256 * 4);
  for (const id of on) table.set([...colours[id], 255], id * 4);
  return looked(labels, table);
}

/** White where the classes are that are on, black elsewhere. */
export function mask(labels: Uint8Array, on: ReadonlySet<number>): Pixels {
  const table = new Uint8ClampedArray(256 * 4);
  for (let id = 0; id < 256; id++) {
    const value = on.has(id) ? 255 : 0;
    table.set([value, value, value, 255], id * 4);
  }
  return looked(labels, table);
}

/** The photo with opacities; where these are 0, so is the colour. */
export function cutout(photo: Uint8ClampedArray, alpha: Uint8Array): Pixels {
  const pixels = new Uint8ClampedArray(photo);
  alpha.forEach((opacity, i) => {
    if (opacity === 0) pixels.fill(0, i * 4, i * 4 + 3);
    pixels[i * 4 + 3] = opacity;
  });
  return pixels;
}

/** The photo with colours over it; 0 shows the photo only, 1 the colours only. */
export function blended(photo: Uint8ClampedArray, colours: Pixels, opacity: number): Pixels {
  const pixels = new Uint8ClampedArray(photo);
  for (let i = 0; i < pixels.length; i += 4) {
    if (colours[i + 3] === 0) continue;
    for (let c = i; c < i + 3; c++) pixels[c] += (colours[c] - pixels[c]) * opacity;
  }
  return pixels;
}

/** The classes in a label map, background left out. */
export function classesIn(labels: Uint8Array): number[] {
  const there = new Uint8Array(256);
  for (const id of labels) there[id] = 1;
  return [...there.keys()].filter((id) => id > 0 && there[id] === 1);
}

function looked(labels: Uint8Array, table: Uint8ClampedArray): Pixels {
  const colours = new Uint32Array(table.buffer);
  return new Uint8ClampedArray(Uint32Array.from(labels, (id) => colours[id]).buffer);
}
