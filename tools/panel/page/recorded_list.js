// The list: only the rows that are in view exist, however many episodes there are.

import { address, ask } from "./recorded_requests.js";
import { kinds } from "./recorded_filter.js";

/** @typedef {import("./recorded_requests.js").Entry} Entry */
/** @typedef {import("./recorded_several.js").Ticks} Ticks */

const ROW = 68; // pixels, as in recorded.css
const BEYOND = 4; // rows above and below the view
const MOST_PICTURES = 300;
const WAIT_MS = 80; // a row that is scrolled past asks for no picture

/** @type {Map<string, string>} key of an entry's state -> URL of its picture; the newest used last */
const pictures = new Map();

/** @param {Entry} entry */
const pictureKey = (entry) => `${entry.name} ${entry.version}`;

/** @param {Entry} entry @param {HTMLImageElement} image @param {AbortSignal} signal */
async function showPicture(entry, image, signal) {
  const key = pictureKey(entry);
  let url = pictures.get(key);
  if (url === undefined) {
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    if (signal.aborted) return;
    try {
      const blob = await (await ask(`${address(entry.name, "picture")}?v=${entry.changed}`, { signal })).blob();
      url = blob.size ? URL.createObjectURL(blob) : "";
    } catch {
      return; // an episode that cannot be read says so in words
    }
  }
  pictures.delete(key);
  pictures.set(key, url);
  while (pictures.size > MOST_PICTURES) {
    const [oldest, old] = /** @type {[string, string]} */ (pictures.entries().next().value);
    pictures.delete(oldest);
    if (old) URL.revokeObjectURL(old);
  }
  if (url) image.src = url;
}

/** @param {string} kind @param {string} text @param {string} [name] */
function part(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

/** @param {Entry} entry */
function figures(entry) {
  if (entry.error && entry.steps === undefined) return entry.error;
  if (entry.steps === undefined) return "not read yet";
  const words = [`${entry.steps} step${entry.steps === 1 ? "" : "s"}`];
  if (entry.return !== null && entry.return !== undefined) words.push(`return ${short(entry.return)}`);
  if (entry.hand) words.push(`${entry.hand} by hand`);
  if (entry.robot) words.push(entry.robot);
  return words.join(", ");
}

/** @param {Entry} entry @returns {[string, string]} the verdict in a word, and its class */
export function verdict(entry) {
  if (entry.dropped) return ["dropped", "dropped"];
  if (entry.error && entry.steps === undefined) return ["damaged", "failure"];
  if (entry.success === undefined) return ["", ""];
  if (entry.success === null) return ["unknown", ""];
  const word = entry.success ? "success" : "failure";
  return [entry.marked === word ? `${word}, by a person` : word, word];
}

export class List {
  /** @param {HTMLElement} area @param {HTMLElement} rows @param {(name: string) => void} open @param {Ticks} ticks */
  constructor(area, rows, open, ticks) {
    this.area = area;
    this.rows = rows;
    this.open = open;
    this.ticks = ticks;
    /** @type {Entry[]} */
    this.entries = [];
    this.name = ""; // of the open episode
    /** @type {Map<string, {row: HTMLElement, key: string, stop: AbortController}>} */
    this.made = new Map();
    area.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(area);
  }

  /** @param {Entry[]} entries */
  show(entries) {
    this.entries = entries;
    this.ticks.show(entries);
    this.rows.style.height = `${ROW * entries.length}px`;
    this.draw();
  }

  get place() { return this.entries.findIndex(({ name }) => name === this.name); }

  /** Open the episode so many further in the list. @param {number} by */
  move(by) {
    if (!this.entries.length) return;
    const next = this.place < 0 ? 0 : this.place + by;
    this.open(this.entries[Math.max(0, Math.min(this.entries.length - 1, next))].name);
  }

  /** @param {string} name */
  choose(name) {
    this.name = name;
    const top = this.place * ROW, area = this.area;
    if (top >= 0 && area.clientHeight) {
      if (top < area.scrollTop) area.scrollTop = top;
      else if (top + ROW > area.scrollTop + area.clientHeight) area.scrollTop = top + ROW - area.clientHeight;
    }
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.area;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - BEYOND), end = Math.ceil((scrollTop + clientHeight) / ROW) + BEYOND;
    const shown = new Map(this.entries.slice(first, end).map((entry, number) => [entry.name, { entry, place: first + number }]));
    for (const [name, { row, stop }] of this.made) {
      if (shown.has(name)) continue;
      stop.abort();
      row.remove();
      this.made.delete(name);
    }
    for (const [name, { entry, place }] of shown) {
      const before = this.made.get(name), key = `${entry.changed}`;
      let row = before?.row;
      if (!row || before?.key !== key) {
        before?.stop.abort();
        const stop = new AbortController(), made = this.row(entry, stop.signal);
        if (row) row.replaceWith(made); else this.rows.append(made);
        this.made.set(name, { row: made, key, stop });
        row = made;
      }
      row.style.top = `${ROW * place}px`;
      row.setAttribute("aria-posinset", String(place + 1));
      row.setAttribute("aria-setsize", String(this.entries.length));
      row.setAttribute("aria-selected", String(this.ticks.names.has(name)));
      row.setAttribute("aria-current", String(name === this.name));
    }
    const active = this.made.get(this.name);
    if (active) this.area.setAttribute("aria-activedescendant", active.row.id);
    else this.area.removeAttribute("aria-activedescendant");
  }

  /** @param {Entry} entry @param {AbortSignal} signal */
  row(entry, signal) {
    const row = part("div", "", "episode"), words = part("div", "", "words"), line = part("div", "", "line");
    row.id = `row ${entry.name}`.replace(/\s/g, "_");
    row.setAttribute("role", "option");
    row.dataset.name = entry.name;
    if (entry.dropped) row.classList.add("dropped");
    const image = document.createElement("img"), tick = part("span", "", "tick"), [word, kind] = verdict(entry);
    tick.hidden = !this.ticks.able;
    image.alt = "";
    if (entry.images) showPicture(entry, image, signal);
    line.append(part("span", entry.name.replace(/\.hdf5$/, ""), "name"), part("span", word, `verdict ${kind}`));
    words.append(line, part("div", figures(entry), "figures"));
    const flags = part("div", "", "flags");
    for (const each of kinds(entry)) flags.append(part("span", each, "flag"));
    if (entry.edited && !entry.dropped) flags.append(part("span", "edited", "flag quiet"));
    words.append(flags);
    row.append(tick, image, words);
    row.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); }); // selects no text
    row.addEventListener("click", (event) => {
      if (event.shiftKey) this.ticks.upTo(entry.name, this.name);
      else if (event.ctrlKey || event.metaKey || event.target === tick) this.ticks.toggle(entry.name);
      else this.open(entry.name);
    });
    return row;
  }
}
