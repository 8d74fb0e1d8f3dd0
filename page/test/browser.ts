/**
 * The built page in headless Chromium, served by `stn-icnn demo`. Every address but the page's own is
 * refused, and makes the test fail, as do messages in the console.
 */

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import {
  chromium, type Browser, type BrowserContext, type BrowserContextOptions, type JSHandle,
  type Page,
} from "playwright-core";

import type { Classes } from "../src/protocol.ts";
import { path } from "./cases.ts";

export const SCREENS = path("screens");
const ARGUMENTS = [
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run",
  "--disable-background-networking --disable-component-update --disable-sync",
  "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream",
  // No name is looked up, so nothing can leave this machine.
  "--host-resolver-rules=MAP_*_~NOTFOUND,_EXCLUDE_localhost",
]
  .flatMap((line) => line.split(" "))
  .map((argument) => argument.replaceAll("_", " "));

/** The page's server, and a browser. */
export class Site {
  private constructor(
    private readonly server: ChildProcess,
    private readonly browser: Browser,
    readonly address: string,
  ) {}

  static async open(): Promise<Site> {
    mkdirSync(SCREENS, { recursive: true });
    const server = spawn("stn-icnn", ["demo", "--port", "0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const address = await new Promise<string>((resolve, reject) => {
      server.stdout?.on("data", (text: Buffer) => {
        const found = /http:\S+\//.exec(text.toString())?.[0];
        if (found) resolve(found);
      });
      server.on("exit", (status) => reject(new Error(`stn-icnn demo ended: ${status}`)));
    });
    const executablePath = "/usr/bin/chromium";
    return new Site(server, await chromium.launch({ executablePath, args: ARGUMENTS }), address);
  }

  async close(): Promise<void> {
    await this.browser.close();
    this.server.kill("SIGINT");
  }

  /** Opens a tab; with the networks of `stand_in.py` if so wanted. */
  async visit(options: BrowserContextOptions, standIn = false): Promise<Visit> {
    const context = await this.browser.newContext(options);
    const visit = new Visit(context, await context.newPage(), this.address);
    await context.route(
      (url) => url.origin !== new URL(this.address).origin,
      (route) => route.abort(),
    );
    if (standIn) {
      for (const name of ["network.json", "network.onnx", "far.onnx"]) {
        await context.route(`**/${name}`, (route) =>
          route.fulfill({ path: path(`stand_in/${name}`) }),
        );
      }
    }
    return visit;
  }
}

/** A tab of the browser, with its requests and console messages. */
export class Visit {
  readonly requested: string[] = [];
  readonly messages: string[] = [];

  constructor(
    private readonly context: BrowserContext,
    readonly page: Page,
    private readonly address: string,
  ) {
    context.on("request", (request) => this.requested.push(request.url()));
    page.on("console", (message) => this.messages.push(message.text()));
    page.on("pageerror", (error) => this.messages.push(error.message));
  }

  /** Opens the page. */
  async open(): Promise<void> {
    await this.page.goto(this.address);
  }

  /** Closes the tab, and checks its requests and unexpected console messages. */
  async leave(expected = /^$/): Promise<void> {
    await this.context.close();
    const own = [this.address, `blob:${this.address}`];
    const foreign = this.requested.filter((url) => !own.some((start) => url.startsWith(start)));
    assert.deepEqual(foreign, []);
    assert.deepEqual(this.messages.filter((message) => !expected.test(message)), []);
  }

  /** Gives the page a file. */
  async choose(file: string | { name: string; mimeType: string; buffer: Buffer }): Promise<void> {
    await this.page.locator("#file").setInputFiles(file);
  }

  /** Waits for the last message about a photo; returns it. */
  async parsed(): Promise<string> {
    await this.page.waitForFunction(
      () => /Took|could not be parsed/.test(document.querySelector(".photo")?.textContent ?? ""),
      null,
      { timeout: 120_000 },
    );
    return (await this.page.locator("#status").textContent()) ?? "";
  }

  /** Gives the page a photo, and waits for the last message about it; returns that. */
  async parse(file: string): Promise<string> {
    await this.forget();
    await this.choose(file);
    return this.parsed();
  }

  /** Removes the message, so that `parsed` waits for the next one. */
  async forget(): Promise<void> {
    await this.page.locator("#status").evaluate((line) => (line.textContent = ""));
  }

  /** The label map that the colours over the photo show. */
  async labels(known: Classes): Promise<Uint8Array> {
    const canvas = await this.page.locator("#overlay").evaluateHandle((c: HTMLCanvasElement) => c);
    const pixels = new Uint32Array((await pixelsOf(canvas)).buffer);
    const ids = new Map([[0, 0]]);
    known.colours.forEach(([red, green, blue], id) => {
      ids.set(new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0], id);
    });
    return Uint8Array.from(pixels, (pixel) => {
      const id = ids.get(pixel);
      if (id === undefined) throw new Error(`no class has the colour ${pixel.toString(16)}`);
      return id;
    });
  }

  /** What one of the downloads holds: its name and size, and red and opacity of each pixel. */
  async download(button: string): Promise<Download> {
    const [file] = await Promise.all([
      this.page.waitForEvent("download"),
      this.page.getByRole("button", { name: button, exact: true }).click(),
    ]);
    const content = readFileSync(await file.path()).toString("base64");
    const picture = await this.page.evaluateHandle((text) => {
      const letters = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      return createImageBitmap(new Blob([letters]));
    }, content);
    const pixels = await pixelsOf(picture);
    return {
      name: file.suggestedFilename(),
      size: await picture.evaluate(({ width, height }) => [width, height]),
      red: pixels.filter((_, i) => i % 4 === 0),
      alpha: pixels.filter((_, i) => i % 4 === 3),
    };
  }

  /** Whether an element lies within the window, and nothing over it. */
  async inView(selector: string): Promise<boolean> {
    return this.page.locator(selector).evaluate((element) => {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      const inside = left >= -1 && top >= -1 && right <= innerWidth + 1 && bottom <= innerHeight + 1;
      const front = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
      return inside && element.contains(front);
    });
  }
}

export interface Download {
  readonly name: string;
  readonly size: readonly number[];
  readonly red: Uint8Array;
  readonly alpha: Uint8Array;
}

/** Red, green, blue and opacity of each pixel of what the page has of some kind. */
async function pixelsOf(handle: JSHandle<HTMLCanvasElement | ImageBitmap>): Promise<Uint8Array> {
  // As text, which comes over far faster than a list of numbers.
  const text = await handle.evaluate((picture) => {
    const { width, height } = picture;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context?.drawImage(picture, 0, 0);
    const { data } = context?.getImageData(0, 0, width, height) ?? { data: [] };
    const pieces = [];
    for (let i = 0; i < data.length; i += 32_768) {
      pieces.push(String.fromCharCode(...data.slice(i, i + 32_768)));
    }
    return btoa(pieces.join(""));
  });
  return Uint8Array.from(Buffer.from(text, "base64"));
}
