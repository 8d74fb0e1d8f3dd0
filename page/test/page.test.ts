/** The page with the parser's networks, against Python's labels. */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import type { Classes } from "../src/protocol.ts";
import { SCREENS, Site, type Visit } from "./browser.ts";
import { agreement, bytes, cases, path } from "./cases.ts";

const DESKTOP = { width: 1280, height: 800 };

let site: Site;
let visit: Visit;
let known: Classes;

before(async () => {
  site = await Site.open();
  known = (await (await fetch(new URL("network.json", site.address))).json()) as Classes;
});
after(() => site.close());
beforeEach(async () => {
  visit = await site.visit({ viewport: DESKTOP });
});
afterEach(() => visit.leave());

/** Compares the page's labels to Python's; prints the shares that agree. */
async function compare(name: string): Promise<void> {
  const expected = bytes(cases.parses[name].labels);
  const found = await visit.labels(known);
  const all = agreement(found, expected);
  const face = agreement(found, expected, (i) => found[i] > 0 || expected[i] > 0);
  console.log(`${name}: ${all.toFixed(5)} of the pixels agree, ${face.toFixed(5)} of the faces'`);
  assert.ok(all >= 0.995, `${all} agree`);
  assert.ok(face >= 0.98, `${face} of the faces' pixels agree`);
}

/** Compares a cut-out of the hair to Python's. */
async function compareHair(name: string): Promise<void> {
  const expected = bytes(cases.parses[name].hair);
  const { alpha } = await visit.download("Cut-out");
  const solid = (values: Uint8Array) => values.map((value) => Number(value > 127));
  const share = agreement(solid(alpha), solid(expected));
  assert.ok(share >= 0.995, `${share} agree`);
  const soft = (values: Uint8Array) => values.filter((value) => value > 0 && value < 255).length;
  const [found, wanted] = [soft(alpha), soft(expected)];
  assert.ok(wanted > 0 && Math.abs(found / wanted - 1) < 0.1, `${found} of ${wanted} are soft`);
}

function id(name: string): number {
  assert.ok(known.classes.includes(name), `there is no class ${name}`);
  return known.classes.indexOf(name);
}

test("the sample has Python's labels; a second parse; legend, opacity and downloads", async () => {
  const { page } = visit;
  const opened = performance.now();
  await visit.open();
  assert.ok(await page.evaluate(() => crossOriginIsolated), "threads need isolation");
  await page.screenshot({ path: `${SCREENS}/welcome.png` });
  await page.getByRole("button", { name: "Try it with this photo" }).click();
  console.log(`sample: ${await visit.parsed()}`);
  console.log(`sample: ${((performance.now() - opened) / 1000).toFixed(1)} s after opening`);
  await compare("sample");
  assert.equal(cases.parses["sample"].frames[0], 3, "the sample has a far frame");
  await page.screenshot({ path: `${SCREENS}/sample.png`, fullPage: true });
  assert.ok(visit.requested.some((url) => url.endsWith("network.onnx")), "the worker's count");

  await visit.forget();
  const again = performance.now();
  await page.getByRole("button", { name: "Sample" }).click();
  await visit.parsed();
  console.log(`sample again: ${((performance.now() - again) / 1000).toFixed(1)} s`);
  await compare("sample");

  const full = await visit.labels(known);
  const hair = page.getByRole("checkbox", { name: "hair" });
  await hair.uncheck();
  const without = full.map((value) => (value === id("hair") ? 0 : value));
  assert.deepEqual(await visit.labels(known), without);
  await page.getByRole("button", { name: "None of the parts" }).click();
  assert.ok((await visit.labels(known)).every((value) => value === 0));
  await hair.check();
  const mask = await visit.download("Mask");
  assert.equal(mask.name, "astronaut-mask.png");
  assert.deepEqual(mask.red, full.map((value) => (value === id("hair") ? 255 : 0)));
  await compareHair("sample");
  await page.getByRole("button", { name: "All parts" }).click();
  assert.deepEqual(await visit.labels(known), full);

  const opacity = page.getByRole("slider");
  await opacity.focus();
  await page.keyboard.press("End");
  assert.equal(await page.locator("#overlay").evaluate((canvas) => canvas.style.opacity), "1");
  const { red } = await visit.download("Photo with colours");
  const nose = full.indexOf(id("nose"));
  assert.equal(red[nose], known.colours[id("nose")][0]);
});

test("several faces, of a file, one of which is chosen; squares with and without faces", async () => {
  const { page } = visit;
  const expected = cases.parses["group"];
  await visit.open();
  assert.match(await visit.parse(path("group.png")), new RegExp(`^${expected.faces} faces`));
  await compare("group");
  await page.screenshot({ path: `${SCREENS}/group.png`, fullPage: true });

  const all = await visit.labels(known);
  const owners = bytes(expected.owners);
  for (const face of [0, expected.faces - 1]) {
    await page.getByRole("radio", { name: `Face ${face + 1}` }).check();
    const own = await visit.labels(known);
    const right = all.map((label, i) => (owners[i] === face ? label : 0));
    const share = agreement(own, right);
    assert.ok(share >= 0.99, `${share} of the pixels of face ${face + 1} agree`);
    const { alpha } = await visit.download("Cut-out");
    assert.deepEqual(alpha.map((value) => Number(value > 127)), own.map((label) => +(label > 0)));
  }
  await page.screenshot({ path: `${SCREENS}/group-one-face.png`, fullPage: true });
  await page.getByRole("radio", { name: "All faces" }).check();
  await page.getByRole("button", { name: "None of the parts" }).click();
  await page.getByRole("checkbox", { name: "hair" }).check();
  await compareHair("group");

  // A second square is drawn while the first is parsed; only the first contains a face.
  const [x, y] = cases.detector.landmarks[0][2];
  const { width, height } = { width: expected.labels.shape[1], height: expected.labels.shape[0] };
  await page.getByRole("radio", { name: "Face 1" }).check();
  await page.getByRole("button", { name: "Remove face 1" }).click();
  assert.match((await page.locator("#status").textContent()) ?? "", /^4 faces/);
  await visit.forget();
  for (const [left, top, side] of [
    [x - 75, y - 75, 150],
    [20, 20, 60],
  ] as const) {
    await page.getByRole("button", { name: "Mark a face" }).click();
    const stage = await page.locator("#stage").boundingBox();
    assert.ok(stage);
    const [toX, toY] = [stage.width / width, stage.height / height];
    await page.mouse.move(stage.x + left * toX, stage.y + top * toY);
    await page.mouse.down();
    await page.mouse.move(stage.x + (left + side) * toX, stage.y + (top + side) * toY, { steps: 4 });
    await page.mouse.up();
    await page.getByRole("button", { name: "Parse this face" }).click();
  }
  assert.match(await visit.parsed(), /^5 faces. There is no face in the square/);
});

test("by keyboard alone", async () => {
  const { page } = visit;
  await visit.open();
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
  await visit.parsed();
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Another photo");
  const full = await visit.labels(known);
  await tabTo("hair");
  await page.keyboard.press("Space");
  const without = full.map((value) => (value === id("hair") ? 0 : value));
  assert.deepEqual(await visit.labels(known), without);
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
  await page.screenshot({ path: `${SCREENS}/square.png`, fullPage: true });
  await visit.forget();
  await page.keyboard.press("Enter");
  assert.match(await visit.parsed(), /^One face/); // in place of the one that was found
  // Clothes reach the edges of frames, which move with the square; the head does not.
  const found = await visit.labels(known);
  const ofHead = (i: number) => found[i] !== id("cloth") && full[i] !== id("cloth");
  const share = agreement(found, full, ofHead);
  assert.ok(share > 0.95 && share < 1, `${share} as the detector has it`);
});
