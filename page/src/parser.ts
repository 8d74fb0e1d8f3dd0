/** The page's side of the worker: photos in, faces out. */

import type { Box } from "./geometry.ts";
import type { Face } from "./labels.ts";
import type { Classes, Reply, Request } from "./protocol.ts";

/** What happens beside the parses. */
export interface Listener {
  loading(loaded: number, total: number): void;
  loaded(runsOn: string, classes: Classes): void;
  /** The networks cannot be used at all. */
  unusable(reason: string): void;
  /** What is being done with the photo of the latest request. */
  step(text: string): void;
}

export class Parser {
  private readonly worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  private id = 0;
  private waiting: { resolve(faces: Face[] | null): void; reject(error: Error): void } | null = null;

  constructor(private readonly listener: Listener) {
    this.worker.addEventListener("message", (event: MessageEvent<Reply>) => this.hear(event.data));
    this.worker.addEventListener("error", (event) =>
      listener.unusable(event.message || "its program did not start"),
    );
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
    const request: Request = { id: ++this.id, photo: { width, height, data }, boxes };
    this.worker.postMessage(request);
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
        return this.listener.unusable(reply.message);
      case "step":
        return this.listener.step(reply.text);
      case "parsed":
        return this.waiting?.resolve([...reply.faces]);
      case "failed":
        return this.waiting?.reject(new Error(reply.message));
    }
  }
}
