// Images of one episode: fetched in chunks of steps, kept compressed up to a bound, decoded when they are shown.

import { address, ask } from "./recorded_requests.js";

const CHUNK = 32; // steps
const MOST_BYTES = 64e6;

export class Frames {
  /** @param {string} name @param {number} version of the episode @param {string[]} cameras @param {number} count of steps with images */
  constructor(name, version, cameras, count) {
    this.name = name;
    this.version = version;
    this.cameras = cameras;
    this.count = count;
    this.stop = new AbortController();
    /** @type {Map<number, Promise<Blob[]>>} chunk -> its images, camera by camera for each step; the newest used last */
    this.chunks = new Map();
    /** @type {Map<number, number>} chunk -> bytes */
    this.bytes = new Map();
  }

  close() { this.stop.abort(); }

  /** The images of a step, one for each camera. @param {number} step @returns {Promise<ImageBitmap[]>} */
  async at(step) {
    const chunk = Math.floor(step / CHUNK), blobs = await this.chunk(chunk);
    if ((step + CHUNK / 2) % CHUNK < CHUNK / 2 && (chunk + 1) * CHUNK < this.count) this.chunk(chunk + 1).catch(() => {}); // it is next
    const first = (step % CHUNK) * this.cameras.length;
    return Promise.all(blobs.slice(first, first + this.cameras.length).map((blob) => createImageBitmap(blob)));
  }

  /** @param {number} number @returns {Promise<Blob[]>} */
  chunk(number) {
    const found = this.chunks.get(number) ?? this.load(number);
    this.chunks.delete(number);
    this.chunks.set(number, found);
    return found;
  }

  /** @param {number} number */
  async load(number) {
    try {
      const url = `${address(this.name, "frames")}?first=${number * CHUNK}&count=${CHUNK}&v=${this.version}`;
      const buffer = await (await ask(url, { signal: this.stop.signal })).arrayBuffer();
      this.bytes.set(number, buffer.byteLength);
      this.forget();
      return unpack(buffer);
    } catch (error) {
      this.chunks.delete(number); // asked for again the next time
      throw error;
    }
  }

  forget() {
    let sum = [...this.bytes.values()].reduce((one, other) => one + other, 0);
    for (const old of [...this.chunks.keys()].slice(0, -2)) {
      if (sum <= MOST_BYTES) return;
      sum -= this.bytes.get(old) ?? 0;
      this.bytes.delete(old);
      this.chunks.delete(old);
    }
  }
}

/** JPEGs, each after its length in 4 bytes. @param {ArrayBuffer} buffer */
function unpack(buffer) {
  const view = new DataView(buffer), blobs = [];
  for (let at = 0; at < buffer.byteLength;) {
    const length = view.getUint32(at, true);
    blobs.push(new Blob([new Uint8Array(buffer, at + 4, length)], { type: "image/jpeg" }));
    at += 4 + length;
  }
  return blobs;
}
