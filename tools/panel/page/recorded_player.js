// The transport: one step for all cameras. Whoever wants to know of it listens with `follow`.

import { Frames } from "./recorded_frames.js";

const UNKNOWN_FPS = 10;
const VIEW_HEIGHT = 0.36; // of the window, at most

export class Player {
  /** @param {HTMLElement} views @param {(error: unknown) => void} fail */
  constructor(views, fail) {
    this.views = views;
    this.fail = fail;
    this.step = 0;
    this.last = 0; // the step after the last action: it has images, too
    this.fps = UNKNOWN_FPS;
    this.speed = 1;
    this.playing = false;
    /** @type {Frames | null} */
    this.frames = null;
    /** @type {HTMLCanvasElement[]} */
    this.canvases = [];
    /** @type {((step: number) => void)[]} */
    this.followers = [];
    this.drawing = false;
    this.began = { step: 0, at: 0 };
  }

  /** @param {(step: number) => void} follower called with each new step, and when playing begins or ends */
  follow(follower) { this.followers.push(follower); }

  /** @param {string} name @param {number} version @param {import("./recorded_requests.js").Numbers} told @param {number} step */
  open(name, version, told, step) {
    this.close();
    const cameras = Object.keys(told.cameras);
    this.last = told.steps;
    this.fps = told.fps ?? UNKNOWN_FPS;
    this.frames = cameras.length ? new Frames(name, version, cameras, told.steps + 1) : null;
    this.canvases = cameras.map((camera) => {
      const figure = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
      const [height, width] = told.cameras[camera];
      [canvas.width, canvas.height] = [width, height];
      figure.style.setProperty("--aspect", String(width / height));
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `camera ${camera}`);
      caption.textContent = camera;
      figure.append(canvas, caption);
      return canvas;
    });
    this.views.style.setProperty("--tall", `${Math.round(VIEW_HEIGHT * 100)}vh`);
    this.views.replaceChildren(...this.canvases.map((canvas) => /** @type {HTMLElement} */ (canvas.parentElement)));
    this.seek(step);
  }

  close() {
    this.pause();
    this.frames?.close();
    this.frames = null;
  }

  /** @param {number} step */
  seek(step) {
    this.step = Math.max(0, Math.min(this.last, Math.round(step)));
    this.began = { step: this.step, at: performance.now() };
    this.tell();
  }

  tell() {
    for (const follower of this.followers) follower(this.step);
    this.draw();
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  play() {
    if (this.step >= this.last) this.step = 0;
    this.playing = true;
    this.began = { step: this.step, at: performance.now() };
    requestAnimationFrame((now) => this.advance(now));
    this.tell();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.tell();
  }

  /** @param {number} speed */
  setSpeed(speed) {
    this.speed = speed;
    this.began = { step: this.step, at: performance.now() };
  }

  /** @param {number} now */
  advance(now) {
    if (!this.playing) return;
    const step = Math.min(this.last, this.began.step + Math.floor((now - this.began.at) / 1000 * this.fps * this.speed));
    if (step !== this.step && !this.drawing) { // images that come late are waited for
      this.step = step;
      this.tell();
    } else if (this.drawing && step > this.step + 1) {
      this.began = { step: this.step, at: now };
    }
    if (this.step >= this.last) this.pause();
    else requestAnimationFrame((next) => this.advance(next));
  }

  async draw() {
    const { frames } = this;
    if (!frames || this.drawing) return; // the newest step is drawn afterwards
    this.drawing = true;
    try {
      for (let drawn = -1; drawn !== this.step && frames === this.frames;) {
        drawn = this.step;
        const images = await frames.at(drawn);
        if (frames !== this.frames) return;
        images.forEach((image, number) => {
          const canvas = this.canvases[number];
          if (canvas.width !== image.width || canvas.height !== image.height) [canvas.width, canvas.height] = [image.width, image.height];
          canvas.getContext("2d")?.drawImage(image, 0, 0);
          canvas.dataset.step = String(drawn);
          image.close();
        });
      }
    } catch (error) {
      if (frames === this.frames) { this.pause(); this.fail(error); }
    } finally {
      this.drawing = false;
      if (frames !== this.frames) this.draw();
    }
  }
}
