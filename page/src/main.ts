/** The page: photos come in by file, drop, paste, camera or sample; colours and files go out. */

import { takePhoto } from "./camera.ts";
import { button, element } from "./elements.ts";
import { Faces } from "./faces.ts";
import { apply, boxOfFrame, type Box } from "./geometry.ts";
import type { Face } from "./labels.ts";
import { Legend, nameInWords } from "./legend.ts";
import { Messages } from "./messages.ts";
import { Parse } from "./parse.ts";
import { Parser } from "./parser.ts";
import { contextOf, PhotoError, readPhoto, type Photo } from "./photo.ts";
import * as pictures from "./pictures.ts";
import type { Classes } from "./protocol.ts";
import { save } from "./save.ts";
import { Square } from "./square.ts";

const photoCanvas = element("photo", HTMLCanvasElement);
const overlayCanvas = element("overlay", HTMLCanvasElement);
const stage = element("stage", HTMLDivElement);
const file = element("file", HTMLInputElement);
const opacity = element("opacity", HTMLInputElement);

const messages = new Messages(() => {
  messages.busy("Loading the network");
  parser.restart();
});
const legend = new Legend(paint);
const facesList = new Faces(photoCanvas, showLabels, removeFace);
const square = new Square(parseMarked, () => button("mark").focus({ preventScroll: true }));
const parser = new Parser({
  loading: (done, total) => messages.loading(done, total),
  loaded,
  unusable: (reason) => messages.fail(reason),
  step: (text) => messages.busy(text),
});

/** The network, once it is loaded. */
let network: { readonly runsOn: string; readonly classes: Classes; readonly since: number } | null;
network = null;
let photo: Photo | null = null;
let parsed: Parse | null = null;
/** Faces that the visitor marked, and that are not parsed yet. */
let marked: readonly Box[] = [];
/** The classes of the photo's pixels, or of those of the chosen face. */
let labels: Uint8Array = new Uint8Array();

// Ways in.

const sources: Record<string, () => void> = {
  choose: () => file.click(),
  camera: () => void take(takePhoto()),
  sample: () => void take(sample()),
};
for (const each of document.querySelectorAll<HTMLElement>("[data-does]")) {
  each.addEventListener("click", () => sources[each.dataset["does"] ?? ""]?.());
}
file.addEventListener("change", () => {
  takeFile(file.files?.[0]);
  file.value = ""; // So that the same file may be chosen again.
});
document.addEventListener("paste", (event) => takeFile(event.clipboardData?.files[0]));
for (const name of ["dragover", "dragleave", "drop"] as const) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragover");
    if (name === "drop") takeFile(event.dataTransfer?.files[0]);
  });
}

function takeFile(chosen: File | undefined): void {
  void take(
    chosen
      ? readPhoto(chosen, chosen.name)
      : Promise.reject(new PhotoError("That is no file. Choose, drop or paste a photo.")),
  );
}

async function sample(): Promise<Photo> {
  const response = await fetch("astronaut.jpg").catch(() => null);
  if (!response?.ok) throw new PhotoError("The sample could not be loaded.");
  return readPhoto(await response.blob(), "astronaut.jpg");
}

/** Shows a photo, when it is there, and parses it; null is none. */
async function take(coming: Promise<Photo | null>): Promise<void> {
  let taken: Photo | null;
  try {
    taken = await coming;
  } catch (error) {
    if (!(error instanceof PhotoError)) throw error;
    return messages.complain(error.message);
  }
  if (!taken) return;
  square.leave();
  photo = taken;
  parsed = null;
  marked = [];
  facesList.show([]);
  showPhoto(taken);
  await parse(null);
}

// What happens to a photo.

/** Parses the photo's faces; boxes are those that the visitor marked. */
async function parse(boxes: readonly Box[] | null): Promise<void> {
  if (!photo) return;
  const asked = performance.now();
  messages.forgive();
  messages.busy(network ? "Looking at the photo" : "Loading the network");
  try {
    const found = await parser.parse(photo.pixels, boxes);
    if (!found || !network) return;
    const seconds = (performance.now() - Math.max(asked, network.since)) / 1000;
    marked = [];
    const empty = (boxes?.length ?? 0) - found.length;
    showFaces([...(boxes ? facesOutside(found) : []), ...found]);
    const note = boxes && empty > 0 ? ` ${noFaceInWords(empty)}` : "";
    messages.rest(
      `${inWords(faces().length)}${note} Took ${seconds.toFixed(1)} s on ${network.runsOn}.`,
    );
    if (faces().length === 0 && !boxes) startMarking();
  } catch (error) {
    marked = [];
    messages.rest("");
    messages.complain(`The photo could not be parsed: ${(error as Error).message}.`);
  }
}

function faces(): readonly Face[] {
  return parsed?.faces ?? [];
}

function parseMarked(box: Box): void {
  // A face marked before may still be parsed: this request takes the place of that one.
  marked = [...marked, box];
  void parse(marked);
}

function removeFace(face: number): void {
  showFaces(faces().filter((_, i) => i !== face));
  messages.rest(inWords(faces().length));
}

/** The faces whose middle is not in the square of a face that was parsed anew. */
function facesOutside(anew: readonly Face[]): Face[] {
  const squares = anew.map(({ layers: [{ matrix, scores }] }) => boxOfFrame(matrix, scores.width));
  return faces().filter(({ layers: [{ matrix, scores }] }) => {
    const middle = (scores.width - 1) / 2;
    const [x, y] = apply(matrix, [middle, middle]);
    return !squares.some(([x0, y0, x1, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
  });
}

function inWords(count: number): string {
  if (count === 0) return "No face was found.";
  return count === 1 ? "One face." : `${count} faces.`;
}

function noFaceInWords(count: number): string {
  return count === 1 ? "There is no face in the square." : `There is none in ${count} squares.`;
}

function startMarking(): void {
  if (photo) square.start(photo.pixels);
}

// What is shown.

function showPhoto({ pixels, full }: Photo): void {
  const fromWelcome = element("welcome", HTMLElement).contains(document.activeElement);
  element("welcome", HTMLElement).hidden = true;
  stage.hidden = element("again", HTMLElement).hidden = false;
  document.body.classList.add("showing");
  for (const canvas of [photoCanvas, overlayCanvas]) {
    canvas.width = pixels.width;
    canvas.height = pixels.height;
  }
  stage.style.setProperty("--ratio", String(pixels.width / pixels.height));
  contextOf(photoCanvas).putImageData(pixels, 0, 0);
  photoCanvas.ariaLabel = "The photo";
  const smaller = element("smaller", HTMLParagraphElement);
  smaller.hidden = full.width === pixels.width && full.height === pixels.height;
  smaller.textContent =
    `The photo has ${full.width} × ${full.height} pixels, more than some browsers can hold. ` +
    `The downloads have ${pixels.width} × ${pixels.height}.`;
  showPanel(false);
  // Where the focus goes the window would scroll, away from the photo.
  if (fromWelcome) {
    document.querySelector<HTMLElement>("#again button")?.focus({ preventScroll: true });
  }
  stage.scrollIntoView({ block: "nearest" });
  messages.showFailure();
}

function showFaces(found: readonly Face[]): void {
  if (!photo || !network) return;
  parsed = new Parse(photo.pixels, found, network.classes.classes);
  facesList.show(found);
  showLabels();
}

/** Shows the labels of the chosen face, or of all. */
function showLabels(): void {
  if (!parsed || !network) return;
  labels = parsed.labelsOf(facesList.chosen);
  const found = pictures.classesIn(labels);
  legend.show(found, network.classes);
  const names = found.map((id) => nameInWords(network?.classes.classes[id] ?? "")).join(", ");
  photoCanvas.ariaLabel = `The photo. ${names ? `In it: ${names}` : "No part of a face in it"}.`;
  showPanel(faces().length > 0);
  paint();
}

function showPanel(shown: boolean): void {
  element("panel", HTMLElement).hidden = !shown;
  document.body.classList.toggle("parsed", shown);
}

function paint(): void {
  const colours = colouring();
  const { width, height } = overlayCanvas;
  contextOf(overlayCanvas).putImageData(new ImageData(colours, width, height), 0, 0);
}

function colouring(): pictures.Pixels {
  return pictures.overlay(labels, network?.classes.colours ?? [], legend.on);
}

function loaded(runsOn: string, known: Classes): void {
  network = { runsOn, classes: known, since: performance.now() };
  element("reach", HTMLSpanElement).textContent = known.wide_frame
    ? "Hair, neck and clothes are labelled also far from the face."
    : "The labels end at the square around each face, which may cut hair, neck and clothes.";
  if (!photo) messages.rest("Ready.");
}

// The panel.

opacity.addEventListener("input", () => {
  overlayCanvas.style.opacity = String(opacity.valueAsNumber / 100);
  element("opacity-value", HTMLOutputElement).value = `${opacity.value} %`;
});
button("show-all").addEventListener("click", () => legend.switchAll(true));
button("show-none").addEventListener("click", () => legend.switchAll(false));
button("mark").addEventListener("click", startMarking);

const downloads: Record<string, (pixels: ImageData, parsed: Parse) => pictures.Pixels> = {
  overlay: ({ data }) => pictures.blended(data, colouring(), opacity.valueAsNumber / 100),
  mask: () => pictures.mask(labels, legend.on),
  cutout: ({ data }, parse) =>
    pictures.cutout(data, parse.opacities(legend.on, facesList.chosen)),
};
for (const [kind, draw] of Object.entries(downloads)) {
  button(`save-${kind}`).addEventListener("click", () => {
    if (!photo || !parsed) return;
    void save(draw(photo.pixels, parsed), photo.pixels, `${photo.name}-${kind}`);
  });
}
