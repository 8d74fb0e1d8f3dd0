/**
 * The two networks, one that finds faces and one that parses them, in onnxruntime-web: on the
 * graphics card where the browser offers it, else on the processor.
 */

import type { InferenceSession, OnnxValue, Tensor } from "onnxruntime-web";
import gpuGlue from "onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs?url";
import gpuRuntime from "onnxruntime-web/ort-wasm-simd-threaded.jspi.wasm?url";
import cpuGlue from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import cpuRuntime from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { wideFrame, type Landmarks, type Matrix, type Size } from "./geometry.ts";
import { reachesEdge, type Layer } from "./labels.ts";
import type { Classes } from "./protocol.ts";
import { fromPlanes, type Picture } from "./resample.ts";
import * as yunet from "./yunet.ts";

declare const __CPU_RUNTIME_BYTES__: number;
declare const __GPU_RUNTIME_BYTES__: number;

type Ort = typeof import("onnxruntime-web/wasm");
type OnProgress = (loaded: number, total: number) => void;

const MOST_THREADS = 8;
/** By how much a number of the trial may differ; processors differ by a millionth. */
const TRIAL_ERROR = 0.01;

export class Networks {
  private constructor(
    private readonly ort: Ort,
    private readonly detector: InferenceSession,
    private readonly parser: InferenceSession,
    /** The part of the parser for far frames, if there are wide frames. */
    private readonly far: InferenceSession | null,
    readonly classes: Classes,
    /** In words. */
    readonly runsOn: string,
  ) {}

  /** Loads all that is needed from the page's folder. */
  static async load(folder: string, gpu: boolean, onProgress: OnProgress): Promise<Networks> {
    const classes = await readClasses(folder);
    const files = await readAll(
      [
        [gpu ? gpuRuntime : cpuRuntime, gpu ? __GPU_RUNTIME_BYTES__ : __CPU_RUNTIME_BYTES__],
        [new URL("network.onnx", folder).href, classes.bytes],
        // Too small to count.
        [new URL("yunet.onnx", folder).href, 0],
        ...(classes.wide_frame ? [[new URL("far.onnx", folder).href, 0] as const] : []),
      ],
      onProgress,
    );
    const [runtime, parser, detector, far] = files;
    const ort: Ort = gpu
      ? await import("onnxruntime-web/jspi")
      : await import("onnxruntime-web/wasm");
    const threads = self.crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmBinary = runtime.buffer;
    ort.env.wasm.wasmPaths = { mjs: new URL(gpu ? gpuGlue : cpuGlue, self.location.href).href };
    const processor = { executionProviders: ["wasm"] };
    const card = { executionProviders: ["webgpu", "wasm"] };
    const networks = new Networks(
      ort,
      await ort.InferenceSession.create(detector, processor),
      await ort.InferenceSession.create(parser, gpu ? card : processor),
      // Its arrays are in the parser's file. The trial below does not include it.
      far
        ? await ort.InferenceSession.create(far, {
            ...processor,
            externalData: [{ path: "network.onnx", data: parser }],
          })
        : null,
      classes,
      gpu ? "the graphics card" : "the processor",
    );
    await networks.try();
    return networks;
  }

  /** Runs the network once, which is its slowest run; graphics cards have got things wrong. */
  private async try(): Promise<void> {
    const { frame_size: side, wide_frame: wide, trial } = this.classes;
    const madeUp = (size: number) =>
      Uint8Array.from({ length: size * size * 3 }, (_, i) => i % 251);
    const found = await this.run(madeUp(side), wide && madeUp(wide.size));
    const scores = new Float64Array(trial.scores.length);
    floats(found.scores).forEach((score, i) => (scores[i % scores.length] += score / side ** 2));
    const around = new Float64Array(trial.wide_scores.length);
    if (wide) {
      const pixels = wide.size ** 2;
      floats(found.wide_scores).forEach((score, i) => (around[Math.floor(i / pixels)] += score / pixels));
    }
    const error = Math.max(
      ...trial.scores.map((score, i) => Math.abs(score - scores[i])),
      ...trial.windows.map((value, i) => Math.abs(value - floats(found.windows)[i])),
      ...trial.wide_scores.map((score, i) => Math.abs(score - around[i])),
    );
    // So written, what is no number is an error too.
    if (!(error < TRIAL_ERROR)) throw new Error(`its numbers are wrong by ${error}`);
  }

  /** Finds the faces of a photo, the largest first. */
  async detect(photo: Picture<Uint8Array>): Promise<Landmarks[]> {
    const input = yunet.prepare(photo);
    if (!input) return [];
    const shape = [1, 3, input.height, input.width];
    const found = await this.detector.run({
      input: new this.ort.Tensor("float32", input.planes, shape),
    });
    const outputs = Object.entries(found).map(([name, value]) => [name, floats(value)] as const);
    return yunet.landmarksOf(Object.fromEntries(outputs), input);
  }

  /**
   * Parses a face.
   *
   * @param matrix its frame, in which it fills a square as it does in CelebAMask-HQ.
   * @param crop gives the pixels of the photo in a square of some size.
   * @returns the scores of the frame, and of the frames around it as far as they are needed.
   */
  async parse(
    matrix: Matrix,
    photo: Size,
    crop: (matrix: Matrix, size: number) => Uint8Array,
  ): Promise<Layer[]> {
    const { frame_size: side, wide_frame: place, classes } = this.classes;
    const around = place && wideFrame(matrix, side, place);
    const found = await this.run(crop(matrix, side), around && crop(around, place.size));
    const data = floats(found.scores);
    const scores = { width: side, height: side, channels: data.length / side ** 2, data };
    const frame = { scores, matrix, ids: classes.map((_, id) => id) };
    if (!place || !around || !this.far) return [frame];
    const ids = place.classes.map((name) => classes.indexOf(name));
    const layer = (values: OnnxValue, matrix: Matrix): Layer => {
      const size = { width: place.size, height: place.size };
      return { scores: fromPlanes(floats(values), size), matrix, ids };
    };
    const wide = layer(found.wide_scores, around);
    if (!reachesEdge(wide, photo)) return [frame, wide];
    const farther = wideFrame(around, place.size, place);
    const extended = await this.far.run({
      wide_scores: found.wide_scores,
      far_frames: this.pixels(crop(farther, place.size)),
    });
    return [frame, layer(extended.blended, around), layer(extended.far_scores, farther)];
  }

  /** Runs the parser's network on the pixels of a frame and a wide frame. */
  private run(frame: Uint8Array, wide: Uint8Array | null): Promise<InferenceSession.ReturnType> {
    const frames = this.pixels(frame);
    return this.parser.run(wide ? { frames, wide_frames: this.pixels(wide) } : { frames });
  }

  /** A square of pixels as the networks take it. */
  private pixels(data: Uint8Array): Tensor {
    const side = Math.sqrt(data.length / 3);
    return new this.ort.Tensor("uint8", data, [1, side, side, 3]);
  }
}

async function readClasses(folder: string): Promise<Classes> {
  return (await get(new URL("network.json", folder).href)).json();
}

/** Whether the networks can run on the graphics card here. */
export async function hasGpu(): Promise<boolean> {
  // The runtime for it waits for the card by suspending WebAssembly.
  if (!("Suspending" in WebAssembly && "gpu" in navigator)) return false;
  const adapter = await (navigator.gpu as GPU).requestAdapter();
  return adapter !== null && !adapter.info.isFallbackAdapter; // which a program plays, slowly
}

/** The little that is asked of WebGPU, which TypeScript does not know by itself. */
interface GPU {
  requestAdapter(): Promise<{ readonly info: { readonly isFallbackAdapter?: boolean } } | null>;
}

async function readAll(
  files: readonly (readonly [url: string, bytes: number])[],
  onProgress: OnProgress,
): Promise<Uint8Array<ArrayBuffer>[]> {
  const total = files.reduce((sum, [, bytes]) => sum + bytes, 0);
  let loaded = 0;
  return Promise.all(
    files.map(async ([url, bytes]) => {
      const { body } = await get(url);
      const counted = body?.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>({
          transform(chunk, controller) {
            if (bytes > 0) loaded += chunk.length;
            onProgress(loaded, total);
            controller.enqueue(new Uint8Array(chunk));
          },
        }),
      );
      return new Uint8Array(await new Response(counted ?? null).arrayBuffer());
    }),
  );
}

async function get(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the server gives ${response.status} for ${url}`);
  return response;
}

function floats(value: OnnxValue): Float32Array {
  if (!(value.data instanceof Float32Array)) throw new Error("The network gives no floats.");
  return value.data;
}
