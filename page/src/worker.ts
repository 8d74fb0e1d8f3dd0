/** The work beside the page, which so goes on answering: a photo in, the parses of its faces out. */

import { frameAroundBox, frameAroundLandmarks, type Matrix } from "./geometry.ts";
import { faceOfLayers, showsFace, type Face } from "./labels.ts";
import { hasGpu, Networks } from "./networks.ts";
import type { Reply, Request } from "./protocol.ts";
import { opaque, pull } from "./resample.ts";

// The worker's file lies in a folder of the page's.
const folder = new URL("..", self.location.href).href;
const networks = load();
let latest = 0;
let queue = Promise.resolve(); // A network runs once at a time.

self.addEventListener("message", ({ data }: MessageEvent<Request>) => {
  latest = data.id;
  queue = queue.then(() => answer(data));
});
// Said here, whether or not a photo is waiting.
networks.catch((error: unknown) => say({ kind: "unusable", message: text(error) }));

async function answer(request: Request): Promise<void> {
  try {
    const faces = await parse(request);
    if (!faces) return;
    const buffers = faces.flatMap(({ labels, layers }) =>
      [labels, ...layers.map(({ scores }) => scores.data)].map(({ buffer }) => buffer),
    );
    self.postMessage({ kind: "parsed", id: request.id, faces } satisfies Reply, {
      transfer: buffers as ArrayBuffer[],
    });
  } catch (error) {
    say({ kind: "failed", id: request.id, message: text(error) });
  }
}

/** Parses the faces of a photo; null if another photo was asked for meanwhile. */
async function parse({ id, photo, boxes }: Request): Promise<Face[] | null> {
  const picture = opaque(photo);
  const loaded = await networks;
  const { frame_size: side, classes } = loaded.classes;
  const crop = (matrix: Matrix, size: number) =>
    pull(picture, matrix, { width: size, height: size }, [0, 0, 0]).data as Uint8Array;
  say({ kind: "step", id, text: "Looking for faces" });
  const places: Matrix[] = boxes
    ? boxes.map((box) => frameAroundBox(box, side))
    : (await loaded.detect(picture)).map((face) => frameAroundLandmarks(face, side));
  const faces: Face[] = [];
  for (const [i, matrix] of places.entries()) {
    if (id !== latest) return null;
    const which = places.length > 1 ? `face ${i + 1} of ${places.length}` : "the face";
    say({ kind: "step", id, text: `Parsing ${which}` });
    const layers = await loaded.parse(matrix, photo, crop);
    // A visitor may mark anything; the detector has its own threshold.
    if (!boxes || showsFace(layers[0], classes)) faces.push(faceOfLayers(layers, photo));
  }
  return faces;
}

async function load(): Promise<Networks> {
  if (!(await hasGpu())) return start(false);
  try {
    return await start(true);
  } catch (error) {
    console.warn("The graphics card cannot run the network; the processor does.", error);
    return start(false);
  }
}

async function start(gpu: boolean): Promise<Networks> {
  const loaded = await Networks.load(folder, gpu, (loaded, total) =>
    say({ kind: "loading", loaded, total }),
  );
  say({ kind: "loaded", runsOn: loaded.runsOn, classes: loaded.classes });
  return loaded;
}

function say(reply: Reply): void {
  self.postMessage(reply);
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
