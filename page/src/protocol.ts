/** The messages between the page and its worker. */

import type { Box, WideFrame } from "./geometry.ts";
import type { Face } from "./labels.ts";
import type { Rgba } from "./resample.ts";

/** What the network was made for: `network.json`, which the build writes. */
export interface Classes {
  readonly classes: readonly string[];
  readonly colours: readonly (readonly [number, number, number])[];
  readonly frame_size: number;
  /** The network's second input, and what it tells apart there; null if it has but one input. */
  readonly wide_frame: (WideFrame & { readonly classes: readonly string[] }) | null;
  /** The length of the network's file. */
  readonly bytes: number;
  /** What it makes of made-up frames, see `prepare.py`: each class's mean score, and the windows. */
  readonly trial: {
    readonly scores: readonly number[];
    readonly windows: readonly number[];
    readonly wide_scores: readonly number[];
  };
}

/** A photo to be parsed. */
export interface Request {
  readonly id: number;
  readonly photo: Rgba;
  /** Where its faces are, each from forehead to chin; null asks the detector. */
  readonly boxes: readonly Box[] | null;
}

export type Reply =
  | { readonly kind: "loading"; readonly loaded: number; readonly total: number }
  | { readonly kind: "loaded"; readonly runsOn: string; readonly classes: Classes }
  | { readonly kind: "unusable"; readonly message: string }
  | { readonly kind: "step"; readonly id: number; readonly text: string }
  | { readonly kind: "parsed"; readonly id: number; readonly faces: readonly Face[] }
  | { readonly kind: "failed"; readonly id: number; readonly message: string };
