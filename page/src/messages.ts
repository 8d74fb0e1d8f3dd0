/** The messages beside the photo: progress, results and errors. */

import { button, element } from "./elements.ts";

export class Messages {
  private readonly status = element("status", HTMLParagraphElement);
  private readonly progress = element("progress", HTMLProgressElement);
  private readonly error = element("error", HTMLParagraphElement);
  private readonly failure = element("failure", HTMLDivElement);

  /** @param onRetry is called when the visitor wants the network to be loaded anew. */
  constructor(onRetry: () => void) {
    button("retry").addEventListener("click", () => {
      const focused = this.failure.contains(document.activeElement);
      this.failure.hidden = true;
      if (focused) this.status.focus({ preventScroll: true });
      onRetry();
    });
  }

  /** Whether the network cannot be used. */
  get failed(): boolean {
    return !this.failure.hidden;
  }

  /** Says what is being done, and that it takes a while. */
  busy(text: string): void {
    if (this.failed) return;
    this.status.textContent = text;
    this.progress.hidden = false;
    this.progress.ariaLabel = text;
    this.progress.removeAttribute("value"); // How long it takes is not known.
    this.progress.removeAttribute("title");
  }

  /** Says how much of the network is loaded. */
  loading(done: number, total: number): void {
    const text = done < total ? "Loading the network" : "Starting the network";
    if (this.status.textContent !== text) this.busy(text);
    if (done === total) return;
    this.progress.value = done / total;
    this.progress.title = `${(done / 1e6).toFixed(0)} of ${(total / 1e6).toFixed(0)} MB`;
  }

  /** Says what came out. */
  rest(text: string): void {
    this.status.textContent = text;
    this.progress.hidden = true;
  }

  /** Says what is wrong with a photo; what is being done goes on. */
  complain(text: string): void {
    this.error.textContent = text;
    this.error.hidden = false;
    this.error.scrollIntoView({ block: "nearest" });
  }

  /** Takes the complaint away. */
  forgive(): void {
    this.error.hidden = true;
  }

  /** Says that the network cannot be used, until the visitor tries again. */
  fail(reason: string): void {
    this.rest("");
    element("reason", HTMLParagraphElement).textContent =
      `The network could not be loaded: ${reason}.`;
    this.failure.hidden = false;
    this.showFailure();
  }

  /** Brings a failure into view. */
  showFailure(): void {
    this.failure.scrollIntoView({ block: "nearest" });
  }
}
