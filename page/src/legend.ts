/** The list of classes in a photo, each of which can be switched off. */

import { element } from "./elements.ts";
import type { Classes } from "./protocol.ts";

export class Legend {
  private readonly list = element("classes", HTMLUListElement);
  private readonly off = new Set<number>();
  private shown: readonly number[] = [];

  /** @param onChange is called when classes were switched on or off. */
  constructor(private readonly onChange: () => void) {}

  /** The classes of the photo that are switched on. */
  get on(): ReadonlySet<number> {
    return new Set(this.shown.filter((id) => !this.off.has(id)));
  }

  /** Lists the classes of another photo; those switched off stay so. */
  show(ids: readonly number[], { classes, colours }: Classes): void {
    this.shown = ids;
    this.list.replaceChildren(...ids.map((id) => this.row(id, classes[id], colours[id])));
  }

  /** Switches all of the photo's classes on or off. */
  switchAll(on: boolean): void {
    for (const id of this.shown) this.off[on ? "delete" : "add"](id);
    for (const box of this.list.querySelectorAll("input")) box.checked = on;
    this.onChange();
  }

  private row(id: number, name: string, colour: readonly number[]): HTMLLIElement {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !this.off.has(id);
    box.addEventListener("change", () => {
      this.off[box.checked ? "delete" : "add"](id);
      this.onChange();
    });
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = `rgb(${colour.join(" ")})`;
    const words = document.createElement("span");
    words.className = "name";
    words.textContent = nameInWords(name);
    const label = document.createElement("label");
    label.append(box, swatch, words);
    const row = document.createElement("li");
    row.append(label);
    return row;
  }
}

/** A class's name for people: `brow_1`, which is on the picture's left, becomes "left brow". */
export function nameInWords(name: string): string {
  const [, base, side] = /^(.*?)(?:_([12]))?$/.exec(name) ?? [];
  const words = base === "cloth" ? "clothes" : base.replaceAll("_", " ");
  return side ? `${side === "1" ? "left" : "right"} ${words}` : words;
}
