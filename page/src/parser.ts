/** The page's side of the worker: photos in, faces out. */

import type { Box } from "./geometry.ts";
import type { Face } from "./labels.ts";
import type { Classes, Reply, Request } from "./protocol.ts";

/** What happens beside the parses. */
export interface Listener {
  loading(loaded: number, total: number): void;
  loaded(runsOn: string, classes: Classes): void;
  /** The networks cannot be used, until `restart` succeeds. */
  unusable(reason: string): void;
  /** What is being done with the photo of the latest request. */
  step(text: string): void;
}

export class Parser {
  /** Null after a failure. */
  private worker: Worker | null = null;
  private id = 0;
  /** The latest request, until it is answered. */
  private request: Request | null = null;
  private waiting: { resolve(faces: Face[] | null): void; reject(error: Error): void } | null = null;

  constructor(private readonly listener: Listener) {
    this.restart();
  }

  /** Loads the networks anew; a request that waits for them is answered then. */
  restart(): void {
    this.worker?.terminate();
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => {
      if (worker === this.worker) this.hear(data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault(); // The page shows its own message.
      if (worker === this.worker) this.fail(event.message || "its program did not start");
    });
    this.worker = worker;
    if (this.request) worker.postMessage(this.request);
  }

  /**
   * Parses the faces of a photo.
   *
   * @param boxes where they are; null lets the detector find them.
   * @returns the faces, or null if another parse was asked for meanwhile.
   */
  parse(photo: ImageData, boxes: readonly Box[] | null): Promise<readonly Face[] | null> {
    this.waiting?.resolve(null);
    const { width, height, data } = photo;
    this.request = { id: ++this.id, photo: { width, height, data }, boxes };
    this.worker?.postMessage(this.request);
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
    });
  }

  private hear(reply: Reply): void {
    if ("id" in reply && reply.id !== this.id) return;
    switch (reply.kind) {
      case "loading":
        return this.listener.loading(reply.loaded, reply.total);
      case "loaded":
        return this.listener.loaded(reply.runsOn, reply.classes);
      case "unusable":
        return this.fail(reply.message);
      case "step":
        return this.listener.step(reply.text);
      case "parsed":
        this.request = null;
        return this.waiting?.resolve([...reply.faces]);
      case "failed":
        this.request = null;
        return this.waiting?.reject(new Error(reply.message));
    }
  }

  private fail(reason: string): void {
    this.worker?.terminate();
    this.worker = null;
    this.listener.unusable(reason);
  }
}
