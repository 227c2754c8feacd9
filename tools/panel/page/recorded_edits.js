// What is done to one or several episodes, and how it is taken back: the server keeps what was before each edit. An edit
// names the versions that were seen; the server refuses it where somebody else has changed one of them since.

import { change, Unanswered } from "./recorded_requests.js";

/** @typedef {import("./recorded_requests.js").Entry} Entry */
/** @typedef {{edit: number, names: string[], words: string}} Done */
/** @typedef {{name: string, version: string}} Seen */

/** @param {string[]} names */
export const called = (names) => names.length === 1 ? names[0].replace(/\.hdf5$/, "") : `${names.length} episodes`;

const MOST_MADE = 1000;

export class Edits {
  /** @param {(entries: Entry[], words: string) => void} done called after each edit @param {(error: unknown) => void} fail */
  constructor(done, fail) {
    this.done = done;
    this.fail = fail;
    /** @type {Done[]} */
    this.undos = [];
    /** @type {Done[]} */
    this.redos = [];
    /** @type {{name: string, before: string, after: string, moved: boolean}[]} moved: the steps' numbers, perhaps */
    this.made = []; // by this page
    /** @type {Promise<void>} */
    this.turn = Promise.resolve(); // one after another, in the order in which they were pressed
    this.undoButton = /** @type {HTMLButtonElement} */ ($("undo"));
    this.redoButton = /** @type {HTMLButtonElement} */ ($("redo"));
    this.undoButton.addEventListener("click", () => this.undo());
    this.redoButton.addEventListener("click", () => this.redo());
  }

  /** @param {() => Promise<void>} job */
  next(job) { this.turn = this.turn.then(job); }

  /** All of them as one edit. @param {Seen[]} seen @param {string} deed of tools.edit @param {string} words what it is called @param {object} [more] */
  do(seen, deed, words, more = {}) {
    const names = seen.map(({ name }) => name);
    this.next(async () => {
      const versions = seen.map((each) => this.followed(each, deed === "cut"));
      const edit = await this.send({ names, versions, do: deed, ...more }, words);
      if (edit <= 0) return;
      this.undos.push({ edit, names, words });
      this.redos = [];
      this.tell();
    });
  }

  /** The version that was seen, after what this page has done to it. @param {Seen} seen @param {boolean} bySteps the edit counts steps */
  followed({ name, version }, bySteps) {
    const made = this.made.filter((each) => each.name === name);
    for (;;) {
      const back = made.map(({ after }) => after).lastIndexOf(version); // a version that an edit brought back is as it was
      const next = made.findIndex((each, k) => k > back && each.before === version && !(bySteps && each.moved));
      if (next < 0) return version;
      version = made[next].after;
      made.splice(0, next);
    }
  }

  undo() { this.next(() => this.back(this.undos, this.redos, "undone")); }

  redo() { this.next(() => this.back(this.redos, this.undos, "done again")); }

  /** @param {Done[]} from @param {Done[]} to @param {string} how */
  async back(from, to, how) {
    const last = from.at(-1);
    if (!last) return;
    const edit = await this.send({ do: "back", edit: last.edit }, `${last.words}: ${how}`);
    if (edit < 0) return; // it stays, for when the connection is back
    from.pop(); // also when it cannot be taken back any more
    if (edit) to.push({ ...last, edit });
    this.tell();
  }

  /** @param {{do: string, [more: string]: unknown}} asked @param {string} words @returns {Promise<number>} the edit's number; 0 when it was refused, -1 without an answer */
  async send(asked, words) {
    try {
      const { edit, versions, entries } = await change(asked), moved = !["success", "failure"].includes(asked.do);
      for (const [name, [before, after]] of Object.entries(versions)) this.made.push({ name, before, after, moved });
      this.made.splice(0, this.made.length - MOST_MADE);
      this.done(entries, words);
      return edit;
    } catch (error) {
      const lost = error instanceof Unanswered; // said until the next edit: the connection may be back at once
      this.fail(lost ? `no answer to "${words}", which may have been done: look before you try again` : error);
      return lost ? -1 : 0;
    }
  }

  tell() {
    const name = (/** @type {Done | undefined} */ done) => done ? `${done.words}, ${called(done.names)}` : "";
    this.undoButton.disabled = !this.undos.length;
    this.redoButton.disabled = !this.redos.length;
    this.undoButton.title = `Ctrl+Z or U${this.undos.length ? `: ${name(this.undos.at(-1))}` : ""}`;
    this.redoButton.title = `Ctrl+Shift+Z${this.redos.length ? `: ${name(this.redos.at(-1))}` : ""}`;
  }
}
