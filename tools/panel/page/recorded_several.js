// Several episodes that are selected, and the edits of all of them at once.

import { called } from "./recorded_edits.js";

/** @typedef {import("./recorded_requests.js").Entry} Entry */
/** @typedef {import("./recorded_edits.js").Edits} Edits */
/** @typedef {"success" | "failure" | "drop" | "undo"} Deed */

/** @type {Record<Deed, {words: string, fits: (entry: Entry) => boolean}>} */
const DEEDS = {
  success: { words: "marked success", fits: (entry) => !entry.dropped && entry.steps !== undefined },
  failure: { words: "marked failure", fits: (entry) => !entry.dropped && entry.steps !== undefined },
  drop: { words: "dropped", fits: (entry) => !entry.dropped },
  undo: { words: "restored", fits: (entry) => entry.edited },
};

export class Ticks {
  /** @param {Edits} edits @param {() => void} changed @param {(words: string) => void} say */
  constructor(edits, changed, say) {
    this.edits = edits;
    this.changed = changed;
    this.say = say;
    this.able = false; // the episodes can be edited
    /** @type {Entry[]} */
    this.shown = [];
    /** @type {Set<string>} */
    this.names = new Set();
    this.last = ""; // that was selected: where a range begins
    for (const each of /** @type {NodeListOf<HTMLButtonElement>} */ ($("several").querySelectorAll("[data-deed]")))
      each.addEventListener("click", () => this.do(/** @type {Deed} */ (each.dataset.deed)));
    $("untick").addEventListener("click", () => this.clear());
  }

  /** What the list shows: nothing else can be selected. @param {Entry[]} entries */
  show(entries) {
    this.shown = entries;
    const there = new Set(entries.map(({ name }) => name));
    for (const name of this.names) if (!there.has(name)) this.names.delete(name);
    this.tell();
  }

  /** @param {string} name */
  toggle(name) {
    if (!this.able || !name) return;
    if (!this.names.delete(name)) this.names.add(name);
    this.last = name;
    this.draw();
  }

  /** @param {string} name */
  add(name) { if (!this.names.has(name)) this.toggle(name); }

  /** From the one that was selected last, or else from another. @param {string} name @param {string} other */
  upTo(name, other) {
    const place = (/** @type {string} */ one) => this.shown.findIndex((entry) => entry.name === one);
    const here = place(name), there = place(this.last) < 0 ? place(other) : place(this.last);
    if (!this.able || here < 0) return;
    const [first, end] = [here, there < 0 ? here : there].sort((one, two) => one - two);
    for (const entry of this.shown.slice(first, end + 1)) this.names.add(entry.name);
    this.draw();
  }

  all() {
    if (!this.able) return;
    for (const { name } of this.shown) this.names.add(name);
    this.draw();
  }

  clear() {
    this.names.clear();
    this.last = "";
    this.draw();
  }

  draw() {
    this.tell();
    this.changed();
  }

  /** @param {Deed} deed */
  fitting(deed) { return this.shown.filter((entry) => this.names.has(entry.name) && DEEDS[deed].fits(entry)); }

  tell() {
    $("several").hidden = !this.names.size;
    $("ticked").textContent = `${this.names.size} selected`;
    for (const deed of /** @type {Deed[]} */ (Object.keys(DEEDS)))
      $("several").querySelector(`[data-deed=${deed}]`).disabled = !this.fitting(deed).length;
  }

  /** Of those selected that it fits, as one edit. @param {Deed} deed */
  do(deed) {
    const seen = this.fitting(deed).map(({ name, version }) => ({ name, version })), { words } = DEEDS[deed];
    if (!seen.length) return;
    this.say(`${called(seen.map(({ name }) => name))}: to be ${words}`);
    this.edits.do(seen, deed, words);
  }
}
