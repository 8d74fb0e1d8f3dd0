/** The page: photos come in by file, drop, paste, camera or sample; colours and files go out. */

import { takePhoto } from "./camera.ts";
import { button, element } from "./elements.ts";
import { apply, type Box } from "./geometry.ts";
import { merged, type Face } from "./labels.ts";
import { Legend, nameInWords } from "./legend.ts";
import { Parser } from "./parser.ts";
import { contextOf, PhotoError, readPhoto, type Photo } from "./photo.ts";
import * as pictures from "./pictures.ts";
import type { Classes } from "./protocol.ts";
import { save } from "./save.ts";
import { Square } from "./square.ts";

const photoCanvas = element("photo", HTMLCanvasElement);
const overlayCanvas = element("overlay", HTMLCanvasElement);
const file = element("file", HTMLInputElement);
const opacity = element("opacity", HTMLInputElement);
const progress = element("progress", HTMLProgressElement);
const status = element("status", HTMLParagraphElement);
const errorText = element("error", HTMLParagraphElement);

const legend = new Legend(paint);
const square = new Square(parseMarked, () => button("mark").focus());
const parser = new Parser({ loading, loaded, unusable, step: busy });

/** The network, once it is loaded. */
let network: { readonly runsOn: string; readonly classes: Classes; readonly since: number } | null;
network = null;
let photo: Photo | null = null;
let faces: readonly Face[] = [];
/** Faces that the visitor marked, and that are not parsed yet. */
let marked: readonly Box[] = [];
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
  const response = await fetch("astronaut.jpg");
  if (!response.ok) throw new PhotoError("The sample could not be loaded.");
  return readPhoto(await response.blob(), "astronaut.jpg");
}

/** Shows a photo, when it is there, and parses it; null is none. */
async function take(coming: Promise<Photo | null>): Promise<void> {
  let taken: Photo | null;
  try {
    taken = await coming;
  } catch (error) {
    if (!(error instanceof PhotoError)) throw error;
    return fail(error.message);
  }
  if (!taken) return;
  square.leave();
  photo = taken;
  faces = [];
  marked = [];
  showPhoto(taken.pixels);
  await parse(null);
}

// What happens to a photo.

/** Parses the photo's faces; boxes are where the visitor says that they are. */
async function parse(boxes: readonly Box[] | null): Promise<void> {
  if (!photo) return;
  const asked = performance.now();
  errorText.hidden = true;
  busy(network ? "Looking at the photo" : "Loading the network");
  try {
    const found = await parser.parse(photo.pixels, boxes);
    if (!found || !network) return;
    const seconds = (performance.now() - Math.max(asked, network.since)) / 1000;
    faces = [...(boxes ? facesOutside(boxes) : []), ...found];
    marked = [];
    showParse(network.classes);
    rest(`${inWords(faces.length)} Took ${seconds.toFixed(1)} s on ${network.runsOn}.`);
    if (faces.length === 0) startMarking();
  } catch (error) {
    marked = [];
    fail(`The photo could not be parsed: ${(error as Error).message}.`);
  }
}

function parseMarked(box: Box): void {
  // A face marked before may still be parsed: this request takes the place of that one.
  marked = [...marked, box];
  void parse(marked);
}

/** The faces whose middle lies in none of the boxes: those inside are parsed anew. */
function facesOutside(boxes: readonly Box[]): Face[] {
  return faces.filter(({ matrix, side }) => {
    const [x, y] = apply(matrix, [(side - 1) / 2, (side - 1) / 2]);
    return !boxes.some(([x0, y0, x1, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
  });
}

function inWords(count: number): string {
  if (count === 0) return "No face was found.";
  return count === 1 ? "One face." : `${count} faces.`;
}

function startMarking(): void {
  if (photo) square.start(photo.pixels);
}

// What is shown.

function showPhoto(pixels: ImageData): void {
  const fromWelcome = element("welcome", HTMLElement).contains(document.activeElement);
  element("welcome", HTMLElement).hidden = true;
  for (const id of ["stage", "again"]) element(id, HTMLElement).hidden = false;
  for (const canvas of [photoCanvas, overlayCanvas]) {
    canvas.width = pixels.width;
    canvas.height = pixels.height;
  }
  const ratio = String(pixels.width / pixels.height);
  element("stage", HTMLElement).style.setProperty("--ratio", ratio);
  contextOf(photoCanvas).putImageData(pixels, 0, 0);
  photoCanvas.ariaLabel = "The photo";
  showPanel(false);
  if (fromWelcome) document.querySelector<HTMLElement>("#again button")?.focus();
}

function showParse(known: Classes): void {
  if (!photo) return;
  labels = merged(faces, photo.pixels);
  const found = pictures.classesIn(labels);
  legend.show(found, known);
  const names = found.map((id) => nameInWords(known.classes[id])).join(", ");
  photoCanvas.ariaLabel = `The photo. ${names ? `In it: ${names}` : "No part of a face in it"}.`;
  showPanel(found.length > 0);
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

function busy(text: string): void {
  status.textContent = text;
  progress.hidden = false;
  progress.ariaLabel = text;
  progress.removeAttribute("value"); // How long it takes is not known.
  progress.removeAttribute("title");
}

function rest(text: string): void {
  status.textContent = text;
  progress.hidden = true;
}

function fail(text: string): void {
  errorText.textContent = text;
  errorText.hidden = false;
  if (network) rest("");
}

// What the network says.

function loading(done: number, total: number): void {
  if (status.textContent !== "Loading the network") busy("Loading the network");
  progress.value = done / total;
  progress.title = `${(done / 1e6).toFixed(0)} of ${(total / 1e6).toFixed(0)} MB`;
  if (done === total) busy("Starting the network");
}

function loaded(runsOn: string, known: Classes): void {
  network = { runsOn, classes: known, since: performance.now() };
  element("reach", HTMLParagraphElement).textContent = known.wide_frame
    ? "Hair, neck and clothes are labelled as far as a wide square around each face reaches."
    : "The labels end at the square around each face, which may cut hair, neck and clothes.";
  if (!photo) rest("Ready.");
}

function unusable(reason: string): void {
  rest("");
  fail(`The network could not be loaded: ${reason}. Load this page again, perhaps later.`);
}

// The panel.

opacity.addEventListener("input", () => {
  overlayCanvas.style.opacity = String(opacity.valueAsNumber / 100);
  element("opacity-value", HTMLOutputElement).value = `${opacity.value} %`;
});
button("show-all").addEventListener("click", () => legend.switchAll(true));
button("show-none").addEventListener("click", () => legend.switchAll(false));
button("mark").addEventListener("click", startMarking);

const downloads: Record<string, (of: Photo, known: Classes) => pictures.Pixels> = {
  overlay: ({ pixels }) =>
    pictures.blended(pixels.data, colouring(), opacity.valueAsNumber / 100),
  mask: () => pictures.mask(labels, legend.on),
  cutout: ({ pixels }, known) => pictures.cutout(pixels.data, labels, known.classes),
};
for (const [kind, draw] of Object.entries(downloads)) {
  button(`save-${kind}`).addEventListener("click", () => {
    if (photo && network) {
      void save(draw(photo, network.classes), photo.pixels, `${photo.name}-${kind}`);
    }
  });
}
