// The bar under the images: what happened when, and the steps that are selected by dragging on it.

const LANES = 12; // pixels of a lane
const DRAG = 4; // pixels: less is a click, which goes to that step
const GRIP = 8; // pixels at an end of the selection, which take hold of it

/** @typedef {{name: string, colour: string, spans: [number, number][]}} Lane */

export class Timeline {
  /** @param {HTMLCanvasElement} canvas @param {(step: number) => void} seek @param {() => void} selected called when the selection changes */
  constructor(canvas, seek, selected) {
    this.canvas = canvas;
    this.seek = seek;
    this.selected = selected;
    this.steps = 0;
    this.step = 0;
    /** @type {Lane[]} */
    this.lanes = [];
    /** @type {[number, number] | null} first step and the one after the last */
    this.selection = null;
    /** @type {{x: number, fixed: number, moved: boolean} | null} */
    this.drag = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => { this.drag = null; });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(() => this.draw()));
  }

  /** @param {number} steps @param {Lane[]} lanes */
  show(steps, lanes) {
    this.steps = steps;
    this.lanes = lanes;
    this.selection = null;
    this.canvas.style.height = `${LANES * (lanes.length + 1) + 6}px`;
    this.selected();
    this.draw();
  }

  /** @param {[number, number] | null} selection empty ones are none */
  select(selection) {
    if (selection) {
      const [first, end] = selection.map((step) => Math.max(0, Math.min(this.steps, Math.round(step))));
      selection = first < end ? [first, end] : null;
    }
    this.selection = selection;
    this.selected();
    this.draw();
  }

  /** @param {PointerEvent} event */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * this.steps;
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !event.isPrimary || !this.steps) return;
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left;
    let fixed = Math.floor(this.at(event));
    if (this.selection) { // an end of it is moved
      const [first, end] = this.selection, [left, right] = [first, end].map((step) => step / this.steps * box.width);
      if (Math.abs(x - left) <= GRIP) fixed = end;
      else if (Math.abs(x - right) <= GRIP) fixed = first;
    }
    this.drag = { x: event.clientX, fixed, moved: false };
    this.canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  move(event) {
    const { drag } = this;
    if (!drag || !drag.moved && Math.abs(event.clientX - drag.x) < DRAG) return;
    drag.moved = true;
    const here = this.at(event), [first, end] = here < drag.fixed ? [Math.floor(here), drag.fixed] : [drag.fixed, Math.ceil(here)];
    this.select([first, end]);
    this.seek(here < drag.fixed ? first : Math.max(first, end - 1));
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (this.drag && !this.drag.moved) this.seek(Math.floor(this.at(event)));
    this.drag = null;
  }

  /** @param {number} step */
  follow(step) {
    this.step = step;
    this.draw();
  }

  draw() {
    const { canvas, steps } = this, scale = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !steps) return;
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const brush = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    brush.scale(scale, scale);
    const x = (/** @type {number} */ step) => step / steps * width;
    brush.fillStyle = colour("line");
    brush.fillRect(0, 0, width, height);
    this.lanes.forEach(({ colour: name, spans }, number) => {
      brush.fillStyle = colour(name);
      for (const [first, end] of spans) brush.fillRect(x(first), 3 + LANES * number, Math.max(2, x(end) - x(first)), LANES - 2);
    });
    if (this.selection) {
      const [first, end] = this.selection.map(x);
      brush.fillStyle = faint("blue", 0.28);
      brush.fillRect(first, 0, end - first, height);
      brush.fillStyle = colour("blue");
      for (const edge of [first, end]) brush.fillRect(Math.min(width - 3, Math.max(0, edge - 1.5)), 0, 3, height);
    }
    brush.fillStyle = colour("text");
    brush.fillRect(Math.min(width - 2, x(this.step)), 0, 2, height);
  }
}
