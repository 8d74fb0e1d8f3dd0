/** The work beside the page, which so goes on answering: a photo in, the parses of its faces out. */

import { frameAroundBox, frameAroundLandmarks, wideFrame, type Matrix } from "./geometry.ts";
import { faceOfFrame, type Face } from "./labels.ts";
import { hasGpu, Networks } from "./networks.ts";
import type { Reply, Request } from "./protocol.ts";
import { pull, type Picture } from "./resample.ts";

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
    if (faces) say({ kind: "parsed", id: request.id, faces });
  } catch (error) {
    say({ kind: "failed", id: request.id, message: text(error) });
  }
}

/** Parses the faces of a photo; null if another photo was asked for meanwhile. */
async function parse({ id, photo, boxes }: Request): Promise<Face[] | null> {
  const picture = withoutOpacity(photo);
  const loaded = await networks;
  const { frame_size: side, wide_frame: wide } = loaded.classes;
  const crop = (matrix: Matrix, size: number) =>
    pull(picture, matrix, { width: size, height: size }, [0, 0, 0]) as Picture<Uint8Array>;
  say({ kind: "step", id, text: "Looking for faces" });
  const places: Matrix[] = boxes
    ? boxes.map((box) => frameAroundBox(box, side))
    : (await loaded.detect(picture)).map((face) => frameAroundLandmarks(face, side));
  const faces: Face[] = [];
  for (const [i, matrix] of places.entries()) {
    if (id !== latest) return null;
    const which = places.length > 1 ? `face ${i + 1} of ${places.length}` : "the face";
    say({ kind: "step", id, text: `Parsing ${which}` });
    const around = wide && crop(wideFrame(matrix, side, wide), wide.size);
    faces.push(faceOfFrame(await loaded.parse(crop(matrix, side), around), matrix, photo));
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

function withoutOpacity({ width, height, data }: Request["photo"]): Picture<Uint8Array> {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return { width, height, channels: 3, data: rgb };
}

function say(reply: Reply): void {
  self.postMessage(reply);
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
