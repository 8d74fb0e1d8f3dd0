/** Python's results, as `reference.py` writes them. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import type { Box, Landmarks, Matrix, WideFrame } from "../src/geometry.ts";

/** An array in a file. */
export interface Stored {
  readonly file: string;
  readonly shape: readonly number[];
}

interface Cases {
  readonly group: Stored;
  readonly frames: readonly {
    readonly landmarks?: Landmarks;
    readonly box?: Box;
    readonly side: number;
    readonly matrix: Matrix;
    readonly frame: Stored;
    readonly place: WideFrame;
    readonly wide_matrix: Matrix;
    readonly wide: Stored;
  }[];
  readonly scores: {
    readonly scores: Stored;
    readonly wide_scores: Stored;
    readonly far_scores: Stored;
    readonly place: WideFrame;
    readonly ids: readonly number[];
    readonly matrices: Readonly<Record<string, Matrix>>;
    /** By kind of the parse, then by name of the matrix; of all faces together: `merged`. */
    readonly labels: Readonly<Record<"square" | "wide" | "far", Readonly<Record<string, Stored>>>>;
  };
  readonly overlapping: {
    readonly photo: Stored;
    readonly labels: Stored;
    readonly matrices: readonly Matrix[];
    readonly classes: readonly string[];
    /** 255 is background. */
    readonly owners: Stored;
    readonly extended: Stored;
  };
  readonly detector: {
    readonly input: Stored;
    readonly outputs: Readonly<Record<string, Stored>>;
    readonly landmarks: readonly Landmarks[];
  };
  readonly parses: Readonly<Record<string, PhotoCase>>;
}

/** Python's parse of a photo. */
interface PhotoCase {
  readonly faces: number;
  /** How many frames each face has. */
  readonly frames: readonly number[];
  readonly labels: Stored;
  /** The face of each pixel, 255 for background. */
  readonly owners: Stored;
  /** The opacities of a cut-out of the hair. */
  readonly hair: Stored;
}

// The compiled tests lie two folders deeper than their sources.
export const FOLDER = new URL("../../.reference/", import.meta.url);
export const cases: Cases = JSON.parse(readFileSync(new URL("cases.json", FOLDER), "utf8"));

export function path(name: string): string {
  return fileURLToPath(new URL(name, FOLDER));
}

export function bytes({ file }: Stored): Uint8Array {
  return new Uint8Array(readFileSync(path(file)));
}

export function floats(stored: Stored): Float32Array {
  return new Float32Array(bytes(stored).buffer);
}

/** The share of places at which two label maps agree. */
export function agreement(first: Uint8Array, second: Uint8Array, where = (_: number) => true) {
  if (first.length !== second.length) {
    throw new Error(`${first.length} and ${second.length} labels cannot be compared`);
  }
  let [same, all] = [0, 0];
  for (let i = 0; i < first.length; i++) {
    if (!where(i)) continue;
    all++;
    if (first[i] === second[i]) same++;
  }
  return same / all;
}
