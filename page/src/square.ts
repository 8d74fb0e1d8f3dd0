/** A square that a visitor lays over a face: by mouse, finger or keyboard. */

import { button, element } from "./elements.ts";
import { clamp, type Box, type Size } from "./geometry.ts";

const STEP = 0.02; // of the photo's shorter side, for each press of a key
const SMALLEST = 16; // pixels

export class Square {
  private readonly stage = element("stage", HTMLDivElement);
  private readonly view = element("square", HTMLDivElement);
  private readonly bar = element("square-bar", HTMLDivElement);
  private photo: Size = { width: 1, height: 1 };
  // The upper left corner and the side, in pixels of the photo.
  private x = 0;
  private y = 0;
  private side = 0;

  /**
   * @param onDone takes the square, from forehead to chin.
   * @param onEnd is called when the visitor has finished or left.
   */
  constructor(
    private readonly onDone: (box: Box) => void,
    private readonly onEnd: () => void,
  ) {
    button("square-done").addEventListener("click", () => this.done());
    button("square-cancel").addEventListener("click", () => this.leave());
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.view.addEventListener("keydown", (event) => this.press(event));
  }

  /** Shows the square in the middle of a photo. */
  start(photo: Size): void {
    this.photo = photo;
    this.side = Math.min(photo.width, photo.height) / 2;
    this.place((photo.width - this.side) / 2, (photo.height - this.side) / 2);
    this.show(true);
    this.view.focus({ preventScroll: true });
    for (const part of [this.bar, this.stage]) part.scrollIntoView({ block: "nearest" });
  }

  /** Takes the square away. */
  leave(): void {
    if (this.view.hidden) return;
    this.show(false);
    this.onEnd();
  }

  private done(): void {
    const box = [this.x, this.y, this.x + this.side - 1, this.y + this.side - 1] as const;
    this.leave();
    this.onDone(box);
  }

  private show(shown: boolean): void {
    this.view.hidden = this.bar.hidden = !shown;
    this.stage.classList.toggle("marking", shown);
  }

  /** Inside the square a drag moves it; elsewhere it draws another. */
  private drag(down: PointerEvent): void {
    if (this.view.hidden || !down.isPrimary) return;
    const [startX, startY] = this.at(down);
    const grabbed = down.target === this.view ? [startX - this.x, startY - this.y] : null;
    const move = (event: PointerEvent) => {
      const [x, y] = this.at(event);
      if (grabbed) return this.place(x - grabbed[0], y - grabbed[1]);
      this.resize(Math.max(Math.abs(x - startX), Math.abs(y - startY)));
      this.place(x < startX ? startX - this.side : startX, y < startY ? startY - this.side : startY);
    };
    const end = new AbortController();
    for (const name of ["pointerup", "pointercancel"] as const) {
      window.addEventListener(name, () => end.abort(), { signal: end.signal });
    }
    window.addEventListener("pointermove", move, { signal: end.signal });
    down.preventDefault(); // No text is selected meanwhile.
    this.view.focus({ preventScroll: true });
  }

  private press(event: KeyboardEvent): void {
    const step = STEP * Math.min(this.photo.width, this.photo.height);
    const moves: Record<string, () => void> = {
      ArrowLeft: () => this.place(this.x - step, this.y),
      ArrowRight: () => this.place(this.x + step, this.y),
      ArrowUp: () => this.place(this.x, this.y - step),
      ArrowDown: () => this.place(this.x, this.y + step),
      "+": () => this.grow(step),
      "=": () => this.grow(step), // plus without Shift, on many keyboards
      "-": () => this.grow(-step),
      Enter: () => this.done(),
      Escape: () => this.leave(),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }

  /** Resizes about the middle. */
  private grow(by: number): void {
    const before = this.side;
    this.resize(before + by);
    const moved = (before - this.side) / 2;
    this.place(this.x + moved, this.y + moved);
  }

  private resize(side: number): void {
    const longest = Math.max(this.photo.width, this.photo.height);
    this.side = clamp(side, Math.min(SMALLEST, longest), longest);
  }

  /** Moves the square; its middle stays in the photo. */
  private place(x: number, y: number): void {
    const half = this.side / 2;
    this.x = clamp(x, -half, this.photo.width - half);
    this.y = clamp(y, -half, this.photo.height - half);
    const { style } = this.view;
    style.left = `${(100 * this.x) / this.photo.width}%`;
    style.top = `${(100 * this.y) / this.photo.height}%`;
    style.width = `${(100 * this.side) / this.photo.width}%`;
    style.height = `${(100 * this.side) / this.photo.height}%`;
  }

  /** A pointer's place in pixels of the photo. */
  private at(event: PointerEvent): [number, number] {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [
      ((event.clientX - left) / width) * this.photo.width,
      ((event.clientY - top) / height) * this.photo.height,
    ];
  }
}
