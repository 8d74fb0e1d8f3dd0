/** The page in windows of several sizes, with small networks in place of the parser's. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { BrowserContextOptions, Page } from "playwright-core";

import { SCREENS, Site, type Visit } from "./browser.ts";
import { path } from "./cases.ts";

const PHONE = { deviceScaleFactor: 2, hasTouch: true, isMobile: true };
const WINDOWS: Readonly<Record<string, BrowserContextOptions>> = {
  desktop: { viewport: { width: 1280, height: 800 } },
  enlarged: { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 },
  portrait: { viewport: { width: 390, height: 844 }, ...PHONE },
  landscape: { viewport: { width: 844, height: 390 }, ...PHONE },
};
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const NOT_FOUND = /the server responded with a status of 404/;
const NOTES = { name: "notes.txt", mimeType: "", buffer: Buffer.from("no picture") };

let site: Site;
let visit: Visit;
let page: Page;

before(async () => {
  site = await Site.open();
});
after(() => site.close());

/** Checks what can be checked of how accessible the page is, as it is now. */
async function checkAccess(): Promise<void> {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof import("axe-core") };
    const rules = { "label-content-name-mismatch": { enabled: true } };
    const { violations } = await axe.run(document, { rules });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  });
  assert.deepEqual(found, []);
}

async function showsProgress(): Promise<boolean> {
  return page.locator("#progress").isVisible();
}

async function parseSample(): Promise<void> {
  await page.getByRole("button", { name: "Try it with this photo" }).click();
  await visit.parsed();
}

/** One of several faces is chosen, and removed. */
async function chooseFaces(name: string): Promise<void> {
  const count = Number.parseInt(await visit.parse(path("group.png")));
  assert.equal(await page.getByRole("radio").count(), count + 1);
  const solid = async () => (await visit.download("Mask")).red.filter(Boolean).length;
  const all = await solid();
  await page.getByRole("radio", { name: "Face 2" }).check();
  const one = await solid();
  assert.ok(one > 0 && one < all / 2, `${one} of ${all} pixels belong to face 2`);
  assert.ok(await visit.inView("#stage"), "at the end of the panel");
  await page.screenshot({ path: `${SCREENS}/${name}-group.png` });
  await checkAccess();
  await page.getByRole("button", { name: "Remove face 2" }).click();
  assert.equal(await page.locator("#status").textContent(), `${count - 1} faces.`);
  assert.equal(await page.getByRole("radio").count(), count);
}

/** Squares without and with a face, which is removed; a large photo. */
async function markFaces(): Promise<void> {
  assert.match(await visit.parse(path("stand_in/dark.png")), /^No face was found/);
  await visit.forget();
  await page.getByRole("button", { name: "Parse this face" }).click();
  assert.match(await visit.parsed(), /^No face was found. There is no face in the square/);
  assert.equal(await page.locator("#panel").isVisible(), false);

  assert.match(await visit.parse(path("stand_in/large.png")), /^No face was found/);
  await visit.forget();
  await page.getByRole("button", { name: "Parse this face" }).click();
  assert.match(await visit.parsed(), /^One face/);
  assert.ok(await visit.inView("#stage"));
  const note = page.getByText("The photo has 4200 × 300 pixels");
  assert.match((await note.textContent()) ?? "", /4096 × 293/);
  const mask = await visit.download("Mask");
  assert.deepEqual(mask.size, [4096, 293]);
  assert.ok(mask.red.includes(255) && mask.red.includes(0));

  await page.getByRole("button", { name: "Remove the face" }).click();
  assert.match((await page.locator("#status").textContent()) ?? "", /^No face/);
  assert.equal(await page.locator("#panel").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Mark a face");
}

for (const [name, options] of Object.entries(WINDOWS)) {
  describe(name, () => {
    beforeEach(async () => {
      visit = await site.visit(options, true);
      page = visit.page;
    });
    // Chromium itself writes of files that it does not find.
    afterEach(() => visit.leave(NOT_FOUND));

    test("the result stays in view, and is accessible", async () => {
      await visit.open();
      await checkAccess();
      await parseSample();
      assert.ok(await visit.inView("#stage"), "after the parse");
      assert.equal(await page.evaluate(() => scrollY), 0);
      await page.screenshot({ path: `${SCREENS}/${name}-result.png` });
      await checkAccess();
      for (const box of [page.getByRole("checkbox").first(), page.getByRole("checkbox").last()]) {
        await box.click();
        assert.ok(await visit.inView("#stage"), "after a class was switched off");
      }
      await page.screenshot({ path: `${SCREENS}/${name}-classes.png` });
      await page.getByRole("button", { name: "Mark a face" }).click();
      assert.ok((await visit.inView("#stage")) && (await visit.inView("#square-done")), "marking");
      await page.screenshot({ path: `${SCREENS}/${name}-square.png` });
      await checkAccess();
      await page.keyboard.press("Escape");
      assert.ok(await visit.inView("#stage"), "after marking");
      const sideways = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      assert.equal(sideways, 0, "it scrolls sideways");
      for (const button of await page.getByRole("button").all()) {
        const box = await button.boundingBox();
        assert.ok(box && box.height >= 32, `${await button.textContent()} is too small`);
      }

      await page.emulateMedia({ colorScheme: "dark" });
      await checkAccess();
      await page.emulateMedia({ forcedColors: "active" });
      const colours = await page.locator(".swatch").evaluateAll((swatches) =>
        swatches.map((swatch) => [
          getComputedStyle(swatch).backgroundColor, (swatch as HTMLElement).style.backgroundColor,
        ]),
      );
      for (const [shown, meant] of colours) assert.equal(shown, meant);
      await page.screenshot({ path: `${SCREENS}/${name}-forced-colours.png` });
    });

    for (const file of ["network.onnx", "*.wasm", "yunet.onnx", "worker-*.js"]) {
      test(`${file} is not found at first`, async () => {
        const route = `**/${file}`;
        await page.route(route, async (request) => {
          // Without its worker, the page does not begin to load anything.
          if (!file.startsWith("worker")) await page.locator("#progress").waitFor();
          await request.fulfill({ status: 404 });
        });
        await visit.open();
        const failure = page.getByRole("alert").filter({ hasText: "could not be loaded" });
        await failure.waitFor();
        assert.equal(await showsProgress(), false);
        const gap = await page.evaluate(() => {
          const bottom = (selector: string) =>
            document.querySelector(selector)?.getBoundingClientRect().bottom ?? NaN;
          return bottom(".below") - bottom("#failure");
        });
        assert.ok(gap < 1, `${gap} empty pixels below the error`);
        await page.getByRole("button", { name: "Try it with this photo" }).click();
        await page.locator("#stage").waitFor();
        assert.ok(await failure.isVisible(), "the error stays");
        assert.ok((await visit.inView("#failure")) && (await visit.inView("#stage")));
        assert.equal(await showsProgress(), false);
        if (file === "yunet.onnx") {
          await page.screenshot({ path: `${SCREENS}/${name}-failure.png` });
          await checkAccess();
        }
        await page.unroute(route);
        await page.getByRole("button", { name: "Try again" }).click();
        assert.match(await visit.parsed(), /^One face/);
        assert.equal(await failure.isVisible(), false);
      });
    }

    test("a bad file during a parse; faces are chosen, removed and marked", async () => {
      let go = (): void => {};
      const held = new Promise<void>((resolve) => (go = resolve));
      await page.route("**/network.onnx", async (route) => {
        await held;
        await route.fallback();
      });
      await visit.open();
      await page.getByRole("button", { name: "Try it with this photo" }).click();
      await page.locator("#stage").waitFor();
      await visit.choose(NOTES);
      const error = page.getByRole("alert").filter({ hasText: "notes.txt is not a picture" });
      await error.waitFor();
      assert.ok(await showsProgress(), "the progress is shown");
      assert.ok((await visit.inView("#error")) && (await visit.inView("#stage")));
      await page.screenshot({ path: `${SCREENS}/${name}-error.png` });
      go();
      assert.match(await visit.parsed(), /^One face/);
      assert.equal(await showsProgress(), false);
      await chooseFaces(name);
      await markFaces();
    });
  });
}

describe("ways in", () => {
  beforeEach(async () => {
    visit = await site.visit(WINDOWS["desktop"], true);
    page = visit.page;
    await visit.open();
  });
  afterEach(() => visit.leave());

  test("what is no photo is refused in words", async () => {
    const sample = readFileSync(path("../../public/astronaut.jpg"));
    const png = readFileSync(path("group.png"));
    const heic = Buffer.from("\0\0\0\x18ftypheic\0\0\0\0mif1heic", "latin1");
    const error = page.getByRole("alert");
    for (const [name, buffer, words] of [
      ["notes.txt", Buffer.from("no picture"), /notes\.txt is not a picture/],
      ["empty.jpg", Buffer.alloc(0), /empty\.jpg is empty/],
      ["cut.jpg", sample.subarray(0, 9000), /cut\.jpg is damaged/],
      ["cut.png", png.subarray(0, 200), /cut\.png is damaged/],
      ["garbled.jpg", Buffer.concat([sample.subarray(0, 300), png]), /garbled\.jpg is damaged/],
      ["phone.heic", heic, /phone\.heic, which is HEIC/],
    ] as const) {
      await visit.choose({ name, mimeType: "", buffer });
      await error.filter({ hasText: words }).waitFor();
      assert.equal(await page.locator("#stage").isVisible(), false);
    }
    await parseSample();
    assert.equal(await error.isVisible(), false);
  });

  test("photos that are dropped and pasted", async () => {
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
      assert.match(await visit.parsed(), /faces/);
      await visit.forget();
    }
    await page.evaluate(() => document.dispatchEvent(new ClipboardEvent("paste")));
    await page.getByRole("alert").filter({ hasText: "That is no file" }).waitFor();
  });

  test("the camera", async () => {
    await page.getByRole("button", { name: "Use the camera" }).click();
    await page.waitForFunction(() => document.querySelector("video")?.videoWidth);
    await checkAccess();
    await page.getByRole("button", { name: "Take the photo" }).click();
    assert.match(await visit.parsed(), /^No face was found/); // in Chromium's test picture
    assert.ok(await page.getByRole("button", { name: "Parse this face" }).isVisible());

    await page.getByRole("button", { name: "Cancel" }).click();
    await page.evaluate(() => {
      navigator.mediaDevices.getUserMedia = () =>
        Promise.reject(new DOMException("", "NotAllowedError"));
    });
    await page.getByRole("button", { name: "Camera" }).click();
    await page.getByRole("alert").filter({ hasText: "The camera was not allowed" }).waitFor();
  });
});
