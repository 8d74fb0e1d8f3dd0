/** A photo from the visitor's camera. */

import { button, element } from "./elements.ts";
import { PhotoError, photoOf, type Photo } from "./photo.ts";

/** Shows what the camera sees; gives the photo that is taken, or null if the visitor leaves. */
export async function takePhoto(): Promise<Photo | null> {
  const dialog = element("camera", HTMLDialogElement);
  const viewfinder = element("viewfinder", HTMLVideoElement);
  const stream = await open();
  const end = new AbortController();
  try {
    viewfinder.srcObject = stream;
    dialog.showModal();
    return await new Promise<Photo | null>((resolve) => {
      const when = (target: EventTarget, event: string, then: () => Photo | null) =>
        target.addEventListener(event, () => resolve(then()), { signal: end.signal });
      when(dialog, "close", () => null);
      when(button("camera-cancel"), "click", () => null);
      button("take").addEventListener(
        "click",
        () => {
          // Before the first picture there is nothing to take.
          if (viewfinder.videoWidth > 0) resolve(photoOf(viewfinder, "camera"));
        },
        { signal: end.signal },
      );
    });
  } finally {
    end.abort();
    dialog.close();
    viewfinder.srcObject = null;
    for (const track of stream.getTracks()) track.stop();
  }
}

async function open(): Promise<MediaStream> {
  // Browsers offer it to pages from https and localhost only.
  if (!("mediaDevices" in navigator)) {
    throw new PhotoError("This page can use the camera only over https, or from localhost.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (name === "NotAllowedError") {
      throw new PhotoError("The camera was not allowed. Allow it for this page, or choose a photo.");
    }
    if (name === "NotFoundError" || name === "OverconstrainedError") {
      throw new PhotoError("There is no camera here. Choose a photo instead.");
    }
    throw new PhotoError("The camera could not be opened. Perhaps another program uses it.");
  }
}
