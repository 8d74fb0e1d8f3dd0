/**
 * The built page in headless Chromium, served by `stn-icnn demo`, against Python's labels. Every
 * address but the page's own is refused and counted.
 */

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, test } from "node:test";
import {
  chromium, type Browser, type BrowserContext, type JSHandle, type Page,
} from "playwright-core";

import type { Classes } from "../src/protocol.ts";
import { agreement, bytes, cases, path } from "./cases.ts";

const SCREENS = path("screens");
const ARGUMENTS = [
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run",
  "--disable-background-networking --disable-component-update --disable-sync",
  "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream",
  // No name is looked up, so nothing can leave this machine.
  "--host-resolver-rules=MAP_*_~NOTFOUND,_EXCLUDE_localhost",
]
  .flatMap((line) => line.split(" "))
  .map((argument) => argument.replaceAll("_", " "));
const DESKTOP = { width: 1280, height: 800 };

let server: ChildProcess;
let browser: Browser;
let address: string;
let known: Classes;
let context: BrowserContext;
let page: Page;
let requested: string[];

before(async () => {
  mkdirSync(SCREENS, { recursive: true });
  server = spawn("stn-icnn", ["demo", "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  address = await new Promise<string>((resolve, reject) => {
    server.stdout?.on("data", (text: Buffer) => {
      const found = /http:\S+\//.exec(text.toString())?.[0];
      if (found) resolve(found);
    });
    server.on("exit", (status) => reject(new Error(`stn-icnn demo ended: ${status}`)));
  });
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ARGUMENTS });
  known = (await (await fetch(new URL("network.json", address))).json()) as Classes;
});

after(async () => {
  await browser?.close();
  server.kill("SIGINT");
});

beforeEach(async () => {
  requested = [];
  context = await browser.newContext({ viewport: DESKTOP });
  context.on("request", (request) => requested.push(request.url()));
  await context.route(
    (url) => url.origin !== new URL(address).origin,
    (route) => route.abort(),
  );
  page = await context.newPage();
});

afterEach(async () => {
  const own = [address, `blob:${address}`];
  assert.deepEqual(requested.filter((url) => !own.some((start) => url.startsWith(start))), []);
  await context.close();
});

/** Waits for what the page says last of a photo; gives it. */
async function parsed(): Promise<string> {
  const state = page.locator("#status");
  await page.waitForFunction(
    () => /Took|could not/.test(document.querySelector(".photo")?.textContent ?? ""),
    null,
    { timeout: 120_000 },
  );
  return (await state.textContent()) ?? "";
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

/** The label map that the colours over the photo show. */
async function labels(): Promise<Uint8Array> {
  const canvas = await page.locator("#overlay").evaluateHandle((c: HTMLCanvasElement) => c);
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

/** Compares the page's labels to Python's; prints the shares that agree. */
async function compare(name: string): Promise<void> {
  const expected = bytes(cases.parses[name].labels);
  const found = await labels();
  const all = agreement(found, expected);
  const face = agreement(found, expected, (i) => found[i] > 0 || expected[i] > 0);
  console.log(`${name}: ${all.toFixed(5)} of the pixels agree, ${face.toFixed(5)} of the faces'`);
  assert.ok(all >= 0.995, `${all} agree`);
  assert.ok(face >= 0.98, `${face} of the faces' pixels agree`);
}

/** What one of the page's downloads holds: its name, and red and opacity of each pixel. */
async function download(button: string): Promise<{ name: string; red: number[]; alpha: number[] }> {
  const [file] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: button, exact: true }).click(),
  ]);
  const content = readFileSync(await file.path()).toString("base64");
  const picture = await page.evaluateHandle((text) => {
    const letters = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return createImageBitmap(new Blob([letters]));
  }, content);
  const pixels = [...(await pixelsOf(picture))];
  return {
    name: file.suggestedFilename(),
    red: pixels.filter((_, i) => i % 4 === 0),
    alpha: pixels.filter((_, i) => i % 4 === 3),
  };
}

function id(name: string): number {
  assert.ok(known.classes.includes(name), `there is no class ${name}`);
  return known.classes.indexOf(name);
}

test("the sample has Python's labels; a second parse; legend, opacity and downloads", async () => {
  const opened = performance.now();
  await page.goto(address);
  assert.ok(await page.evaluate(() => crossOriginIsolated), "threads need isolation");
  await page.screenshot({ path: `${SCREENS}/1-welcome.png` });
  await page.getByRole("button", { name: "Try it with this photo" }).click();
  console.log(`sample: ${await parsed()}`);
  console.log(`sample: ${((performance.now() - opened) / 1000).toFixed(1)} s after opening`);
  await compare("sample");
  const reach = known.wide_frame ? /as far as a wide square/ : /end at the square/;
  await page.locator("#reach").filter({ hasText: reach }).waitFor();
  await page.screenshot({ path: `${SCREENS}/2-sample.png`, fullPage: true });
  assert.ok(requested.some((url) => url.endsWith("network.onnx")), "the worker's are counted");

  await page.locator("#status").evaluate((line) => (line.textContent = ""));
  const again = performance.now();
  await page.getByRole("button", { name: "Sample" }).click();
  await parsed();
  console.log(`sample again: ${((performance.now() - again) / 1000).toFixed(1)} s`);
  await compare("sample");

  const full = await labels();
  const hair = page.getByRole("checkbox", { name: "hair" });
  await hair.uncheck();
  assert.deepEqual(await labels(), full.map((value) => (value === id("hair") ? 0 : value)));
  await page.getByRole("button", { name: "Show no part" }).click();
  assert.ok((await labels()).every((value) => value === 0));
  await hair.check();
  const mask = await download("Mask");
  assert.equal(mask.name, "astronaut-mask.png");
  assert.deepEqual(mask.red, Array.from(full, (value) => (value === id("hair") ? 255 : 0)));
  await page.getByRole("button", { name: "Show all parts" }).click();
  assert.deepEqual(await labels(), full);

  const cutout = await download("Cut-out");
  assert.equal(cutout.name, "astronaut-cutout.png");
  const away = ["background", "neck", "necklace", "cloth"].map(id);
  assert.deepEqual(cutout.alpha, Array.from(full, (value) => (away.includes(value) ? 0 : 255)));

  const opacity = page.getByRole("slider");
  await opacity.focus();
  await page.keyboard.press("End");
  assert.equal(await page.locator("#overlay").evaluate((canvas) => canvas.style.opacity), "1");
  const { red } = await download("Photo with colours");
  const nose = full.indexOf(id("nose"));
  assert.equal(red[nose], known.colours[id("nose")][0]);
});

test("several faces, of a file", async () => {
  await page.goto(address);
  await page.getByLabel("Choose a photo").last().setInputFiles(path("group.png"));
  assert.match(await parsed(), new RegExp(`^${cases.parses["group"].faces} faces`));
  await compare("group");
  await page.screenshot({ path: `${SCREENS}/3-group.png`, fullPage: true });
});

test("by keyboard alone", async () => {
  await page.goto(address);
  const tabTo = async (name: string) => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const { ariaLabel, textContent, labels } = document.activeElement as HTMLInputElement;
        return (ariaLabel ?? labels?.[0]?.textContent ?? textContent ?? "").trim();
      });
      if (at === name) return;
    }
    assert.fail(`Tab does not come to ${name}`);
  };
  await tabTo("Try it with this photo");
  await page.keyboard.press("Enter");
  await parsed();
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Another photo");
  const full = await labels();
  await tabTo("hair");
  await page.keyboard.press("Space");
  assert.deepEqual(await labels(), full.map((value) => (value === id("hair") ? 0 : value)));
  await page.keyboard.press("Space");

  await page.getByRole("button", { name: "Mark a face" }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Mark a face");
  await page.keyboard.press("Enter");
  // From the middle, 256 pixels wide, to the face: up by 124 and left by 31, smaller by 164.
  for (const [key, count] of [["-", 16], ["ArrowUp", 14], ["ArrowLeft", 3]] as const) {
    for (let i = 0; i < count; i++) await page.keyboard.press(key);
  }
  await page.screenshot({ path: `${SCREENS}/4-square.png`, fullPage: true });
  await page.locator("#status").evaluate((line) => (line.textContent = ""));
  await page.keyboard.press("Enter");
  assert.match(await parsed(), /^One face/); // in place of the one that was found
  // Clothes reach the edge of the wide frame, which moves with the square; the head does not.
  const found = await labels();
  const ofHead = (i: number) => found[i] !== id("cloth") && full[i] !== id("cloth");
  const share = agreement(found, full, ofHead);
  assert.ok(share > 0.95 && share < 1, `${share} as the detector has it`);
});

test("squares are dragged over faces, one while another is parsed", async () => {
  await page.goto(address);
  await page.getByLabel("Choose a photo").last().setInputFiles(path("group.png"));
  const before = await parsed();
  for (const [left, top, right, bottom] of [
    [0.02, 0.6, 0.2, 0.95],
    [0.88, 0.7, 0.99, 0.97],
  ] as const) {
    await page.getByRole("button", { name: "Mark a face" }).click();
    const stage = await page.locator("#stage").boundingBox();
    assert.ok(stage);
    await page.mouse.move(stage.x + stage.width * left, stage.y + stage.height * top);
    await page.mouse.down();
    await page.mouse.move(stage.x + stage.width * right, stage.y + stage.height * bottom, {
      steps: 4,
    });
    await page.mouse.up();
    await page.locator("#status").evaluate((line) => (line.textContent = ""));
    await page.getByRole("button", { name: "Parse this face" }).click();
  }
  assert.equal(Number.parseInt(await parsed()), Number.parseInt(before) + 2);
});

test("what is no photo is refused in words", async () => {
  const sample = readFileSync(path("../../public/astronaut.jpg"));
  const png = readFileSync(path("group.png"));
  const heic = Buffer.from("\0\0\0\x18ftypheic\0\0\0\0mif1heic", "latin1");
  await page.goto(address);
  const error = page.getByRole("alert");
  for (const [name, buffer, words] of [
    ["notes.txt", Buffer.from("no picture"), /notes\.txt is not a picture/],
    ["empty.jpg", Buffer.alloc(0), /empty\.jpg is empty/],
    ["cut.jpg", sample.subarray(0, 9000), /cut\.jpg is damaged/],
    ["cut.png", png.subarray(0, 200), /cut\.png is damaged/],
    ["garbled.jpg", Buffer.concat([sample.subarray(0, 300), png]), /garbled\.jpg is damaged/],
    ["phone.heic", heic, /phone\.heic, which is HEIC/],
  ] as const) {
    const file = { name, mimeType: "", buffer };
    await page.getByLabel("Choose a photo").last().setInputFiles(file);
    await error.filter({ hasText: words }).waitFor();
    assert.equal(await page.locator("#stage").isVisible(), false);
  }
  await page.screenshot({ path: `${SCREENS}/5-error.png` });
  await page.getByRole("button", { name: "Try it with this photo" }).click();
  await parsed();
  assert.equal(await error.isVisible(), false);
});

test("photos that are dropped and pasted", async () => {
  await page.goto(address);
  const content = readFileSync(path("group.png")).toString("base64");
  for (const kind of ["drop", "paste"]) {
    await page.evaluate(
      ([text, event]) => {
        const data = new DataTransfer();
        const photo = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        data.items.add(new File([photo], "group.png", { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(
          event === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }),
        );
      },
      [content, kind] as const,
    );
    assert.match(await parsed(), /faces/);
    await page.locator("#status").evaluate((line) => (line.textContent = ""));
  }
  await page.evaluate(() => document.dispatchEvent(new ClipboardEvent("paste")));
  await page.getByRole("alert").filter({ hasText: "That is no file" }).waitFor();
});

test("the camera", async () => {
  await page.goto(address);
  await page.getByRole("button", { name: "Use the camera" }).click();
  await page.waitForFunction(() => document.querySelector("video")?.videoWidth);
  await page.screenshot({ path: `${SCREENS}/6-camera.png` });
  await page.getByRole("button", { name: "Take the photo" }).click();
  assert.match(await parsed(), /^No face was found/); // in Chromium's test picture
  assert.ok(await page.getByRole("button", { name: "Parse this face" }).isVisible());
  await page.screenshot({ path: `${SCREENS}/7-no-face.png`, fullPage: true });

  await page.getByRole("button", { name: "Cancel" }).click();
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () =>
      Promise.reject(new DOMException("", "NotAllowedError"));
  });
  await page.getByRole("button", { name: "Camera" }).click();
  await page.getByRole("alert").filter({ hasText: "The camera was not allowed" }).waitFor();
});

test("a network that cannot be loaded", async () => {
  await page.route("**/network.onnx", (route) => route.fulfill({ status: 404 }));
  await page.goto(address);
  await page.getByRole("alert").filter({ hasText: /could not be loaded.*404/ }).waitFor();
});

test("on a phone, and in the dark", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto(address);
  await page.screenshot({ path: `${SCREENS}/8-phone-welcome.png` });
  await page.getByRole("button", { name: "Try it with this photo" }).click();
  await parsed();
  await page.screenshot({ path: `${SCREENS}/9-phone.png`, fullPage: true });
  for (const width of [390, 320]) {
    await page.setViewportSize({ width, height: 700 });
    const wider = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    assert.equal(wider, 0, `at ${width} pixels it scrolls sideways`);
  }
  for (const button of await page.getByRole("button").all()) {
    const box = await button.boundingBox();
    assert.ok(box && box.height >= 32, `${await button.textContent()} is too small for a finger`);
  }
});
