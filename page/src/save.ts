/** Pixels as a PNG in the visitor's downloads. */

import { contextOf } from "./photo.ts";
import type { Pixels } from "./pictures.ts";
import type { Size } from "./geometry.ts";

export async function save(pixels: Pixels, { width, height }: Size, name: string): Promise<void> {
  const canvas = new OffscreenCanvas(width, height);
  contextOf(canvas).putImageData(new ImageData(pixels, width, height), 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: "image/png" }));
  link.download = `${name}.png`;
  link.click();
  // The browser has by then begun to read it.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
