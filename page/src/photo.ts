/** A visitor's file as pixels, or an error in words. */

import { round, type Size } from "./geometry.ts";

/** The longer side of the largest photo that every browser can hold as pixels. */
const LONGEST = 4096;

export interface Photo {
  readonly name: string;
  readonly pixels: ImageData;
  /** The size of the file's picture, which is larger if the photo was made smaller. */
  readonly full: Size;
}

/** What keeps a photo from being parsed, shown to the visitor. */
export class PhotoError extends Error {}

/**
 * Decodes a picture, upright by its EXIF orientation, and lays it over white. One with a side of more
 * than 4,096 pixels is made smaller.
 */
export async function readPhoto(file: Blob, name: string): Promise<Photo> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new PhotoError(await whyNot(file, name));
  }
  try {
    return photoOf(bitmap, name.replace(/\.[^.]*$/, "") || "photo");
  } finally {
    bitmap.close();
  }
}

/** The pixels of a picture, over white. */
export function photoOf(picture: ImageBitmap | HTMLVideoElement, name: string): Photo {
  const full =
    picture instanceof HTMLVideoElement
      ? { width: picture.videoWidth, height: picture.videoHeight }
      : { width: picture.width, height: picture.height };
  const factor = Math.max(Math.max(full.width, full.height) / LONGEST, 1);
  const width = Math.max(round(full.width / factor), 1);
  const height = Math.max(round(full.height / factor), 1);
  const context = contextOf(new OffscreenCanvas(width, height));
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return { name, pixels: context.getImageData(0, 0, width, height), full };
}

/** What draws on a canvas; some browsers have none for a large one. */
export function contextOf(canvas: OffscreenCanvas | HTMLCanvasElement) {
  const context = canvas.getContext("2d") as
    OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D | null;
  if (!context) throw new PhotoError("This browser gave no memory for the photo.");
  return context;
}

// The first bytes of the formats that browsers, or cameras, know. A dot stands for any byte.
const FORMATS: readonly (readonly [name: string, start: RegExp])[] = [
  ["JPEG", /^\xff\xd8\xff/],
  ["PNG", /^\x89PNG/],
  ["GIF", /^GIF8/],
  ["WebP", /^RIFF....WEBP/s],
  ["BMP", /^BM/],
  ["HEIC", /^....ftyp(hei|hev|mif)/s],
  ["AVIF", /^....ftypavi/s],
  ["TIFF", /^(II\*\0|MM\0\*)/],
];

async function whyNot(file: Blob, name: string): Promise<string> {
  if (file.size === 0) return `${name} is empty.`;
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  const format = FORMATS.find(([, pattern]) => pattern.test(start))?.[0];
  if (format === undefined) {
    return `${name} is not a picture. Choose a photo, as JPEG, PNG or WebP.`;
  }
  if (["HEIC", "TIFF", "AVIF"].includes(format)) {
    return `This browser cannot read ${name}, which is ${format}. Save it as JPEG or PNG first.`;
  }
  return `${name} is damaged: it begins as ${format}, but cannot be read as a picture.`;
}
