/** The parse of a photo: the labels of all its faces, or of one; in Python, `inference/merging.py`. */

import { merge, type Face } from "./labels.ts";
import { assignOwners, extendOwners } from "./owners.ts";
import { opaque } from "./resample.ts";
import { opacities } from "./soft.ts";

export class Parse {
  /** Class ids of the photo's pixels. */
  readonly labels: Uint8Array;
  /** The face whose scores chose each label, -1 for background. */
  private readonly sources: Int16Array;
  private foundOwners: Int16Array | null = null;

  constructor(
    readonly photo: ImageData,
    readonly faces: readonly Face[],
    private readonly classes: readonly string[],
  ) {
    ({ labels: this.labels, sources: this.sources } = merge(faces, photo));
  }

  /** Class ids of a face's pixels, background elsewhere; null is all faces. */
  labelsOf(face: number | null): Uint8Array {
    if (face === null || this.faces.length === 1) return this.labels;
    const owners = this.owners();
    return this.labels.map((label, i) => (owners[i] === face ? label : 0));
  }

  /** The opacities of a cut-out of some classes of a face; null is all faces. */
  opacities(classes: ReadonlySet<number>, face: number | null): Uint8Array {
    const sources = extendOwners(this.sources, this.photo);
    const labels = this.labelsOf(face);
    if (face !== null && this.faces.length > 1) {
      const owners = extendOwners(this.owners(), this.photo);
      for (let i = 0; i < sources.length; i++) if (owners[i] !== face) sources[i] = -1;
    }
    return opacities(this.faces, sources, labels, classes, this.photo);
  }

  /** The face to which each pixel belongs, -1 for background. */
  private owners(): Int16Array {
    this.foundOwners ??= this.findOwners();
    return this.foundOwners;
  }

  private findOwners(): Int16Array {
    const frames = this.faces.map(({ layers }) => layers[0]);
    // Without wide frames there is no hair but that in the frame.
    if (this.faces.every(({ layers }) => layers.length === 1)) return this.sources;
    return assignOwners(
      opaque(this.photo),
      this.labels,
      frames.map(({ matrix }) => matrix),
      frames[0].scores.width,
      this.classes,
    );
  }
}
