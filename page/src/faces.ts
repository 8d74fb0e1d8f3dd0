/** The list of a photo's faces, of which one can be chosen, and removed. */

import { button, element } from "./elements.ts";
import { invert } from "./geometry.ts";
import type { Face } from "./labels.ts";
import { contextOf } from "./photo.ts";

const THUMBNAIL = 96; // pixels

export class Faces {
  private readonly list = element("face-list", HTMLDivElement);
  private readonly remove = button("remove-face");
  private count = 0;
  private face: number | null = null;

  /**
   * @param onChoose is called when another face is chosen.
   * @param onRemove takes the face that the visitor wants removed.
   */
  constructor(
    private readonly photo: HTMLCanvasElement,
    private readonly onChoose: () => void,
    onRemove: (face: number) => void,
  ) {
    this.remove.addEventListener("click", () => {
      const face = this.removable();
      if (face === null) return;
      onRemove(face);
      if (this.remove.checkVisibility()) return;
      const radio = this.list.querySelector("input");
      const next = radio?.checkVisibility() ? radio : button("mark");
      next.focus({ preventScroll: true });
    });
  }

  /** The face that is chosen; null is all of them. */
  get chosen(): number | null {
    return this.face;
  }

  /** Lists the faces of a photo; all are chosen. */
  show(faces: readonly Face[]): void {
    this.count = faces.length;
    element("faces", HTMLDivElement).hidden = faces.length < 2; // There is nothing to choose.
    this.list.replaceChildren(
      this.choice("All faces", null, []),
      ...faces.map((face, i) => this.choice(`Face ${i + 1}`, i, [this.thumbnail(face)])),
    );
    this.choose(null);
  }

  private choose(face: number | null): void {
    this.face = face;
    const removable = this.removable();
    this.remove.hidden = removable === null;
    const which = this.count > 1 ? `face ${(removable ?? 0) + 1}` : "the face";
    this.remove.textContent = `Remove ${which}`;
  }

  /** The face that is meant when one is to be removed. */
  private removable(): number | null {
    return this.count === 1 ? 0 : this.face;
  }

  private choice(text: string, face: number | null, content: readonly Node[]): HTMLLabelElement {
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = "face";
    radio.checked = face === null;
    radio.addEventListener("change", () => {
      this.choose(face);
      this.onChoose();
    });
    const words = document.createElement("span");
    words.textContent = text;
    const label = document.createElement("label");
    label.append(radio, ...content, words);
    return label;
  }

  /** The face's frame, small. */
  private thumbnail({ layers: [{ matrix, scores }] }: Face): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = THUMBNAIL;
    canvas.ariaHidden = "true";
    const context = contextOf(canvas);
    const [a, b, c, d, e, f] = invert(matrix).map((value) => (value * THUMBNAIL) / scores.width);
    context.setTransform(a, d, b, e, c, f);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.photo, 0, 0);
    return canvas;
  }
}
