// The chosen episode: its player, its bar, its curves, and what can be done to it.

import { Curves } from "./recorded_curves.js";
import { verdict } from "./recorded_list.js";
import { Player } from "./recorded_player.js";
import { numbers } from "./recorded_requests.js";
import { Timeline } from "./recorded_timeline.js";
import { typed } from "./recorded_filter.js";

/** @typedef {import("./recorded_requests.js").Entry} Entry */
/** @typedef {import("./recorded_requests.js").Numbers} Numbers */
/** @typedef {import("./recorded_edits.js").Edits} Edits */

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const LANES = /** @type {const} */ ({ hand: ["by hand", "blue"], idle: ["idle", "quiet"], flags: ["flags", "amber"], success: ["success", "green"] });
const button = (/** @type {string} */ id) => /** @type {HTMLButtonElement} */ ($(id));
const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ ($(id));

export class Episode {
  /** @param {Edits} edits @param {(error: unknown) => void} fail */
  constructor(edits, fail) {
    this.edits = edits;
    this.fail = fail;
    this.editable = false;
    /** @type {Entry | null} */
    this.entry = null;
    /** @type {Numbers | null} */
    this.told = null;
    this.key = ""; // of what is shown of the file
    this.toldVersion = ""; // of the file that `told` is of, or the one before it
    this.stepsKey = ""; // of the steps that can be selected
    this.asked = new AbortController();
    this.player = new Player($("views"), fail);
    this.timeline = new Timeline(/** @type {HTMLCanvasElement} */ ($("track")), (step) => this.player.seek(step), () => this.showSelection());
    this.curves = new Curves($("curves"), (step) => this.player.seek(step));
    this.player.follow((step) => this.showStep(step));
    this.listen();
  }

  listen() {
    const { player } = this;
    button("play").addEventListener("click", () => player.toggle());
    button("to-start").addEventListener("click", () => player.seek(0));
    button("to-end").addEventListener("click", () => player.seek(player.last));
    button("step-back").addEventListener("click", () => this.go(-1));
    button("step-on").addEventListener("click", () => this.go(1));
    input("scrub").addEventListener("input", () => player.seek(Number(input("scrub").value)));
    input("speed").addEventListener("change", () => player.setSpeed(Number(input("speed").value)));
    for (const id of ["first", "end"]) input(id).addEventListener("change", () => {
      const [first, end] = [typed(input("first").value), typed(input("end").value)];
      this.timeline.select([Number.isNaN(first) ? 0 : first, Number.isNaN(end) ? this.timeline.steps : end]);
    });
    button("keep").addEventListener("click", () => this.keep());
    button("remove").addEventListener("click", () => this.remove());
    button("unselect").addEventListener("click", () => this.timeline.select(null));
    button("idle").addEventListener("click", () => this.chooseIdle());
    for (const deed of /** @type {const} */ (["success", "failure", "drop"])) button(deed).addEventListener("click", () => this.do(deed));
    button("original").addEventListener("click", () => this.do("undo"));
  }

  /** @param {Entry} entry @param {boolean} editable */
  async show(entry, editable) {
    const other = entry.name !== this.entry?.name, key = `${entry.name} ${entry.version} ${entry.steps}`;
    this.entry = entry;
    this.editable = editable;
    if (other) { // what is selected or idle is of the one before, and no key may cut this one by it
      this.player.pause();
      this.told = null;
      this.timeline.show(0, []);
    }
    this.showEntry();
    if (key === this.key) {
      this.showFlags();
      return;
    }
    this.key = key;
    this.asked.abort();
    this.asked = new AbortController();
    if (entry.error && entry.steps === undefined) {
      this.told = null;
      this.player.close();
      $("views").replaceChildren();
      this.curves.clear();
      this.showFlags();
      return;
    }
    try {
      this.told = await numbers(entry.name, this.asked.signal);
    } catch (error) {
      if (error instanceof DOMException) return; // another one is asked for
      this.key = ""; // so is this one, the next time
      this.fail(error);
      return;
    }
    this.toldVersion = entry.version;
    this.showEntry(); // with its task
    const step = other ? 0 : Math.min(this.player.step, this.told.steps);
    input("scrub").max = String(this.told.steps);
    this.player.open(entry.name, entry.changed, this.told, step);
    this.showFlags();
    this.curves.show(this.told);
    this.curves.follow(step);
  }

  showEntry() {
    const entry = /** @type {Entry} */ (this.entry), [word, kind] = verdict(entry);
    $("name").textContent = entry.name.replace(/\.hdf5$/, "");
    $("outcome").textContent = word;
    $("outcome").className = `pill ${kind}`;
    const facts = [entry.policy && `acted: ${entry.policy}`, entry.robot && `robot: ${entry.robot}`,
      entry.steps !== undefined && `${entry.steps} steps`, typeof entry.return === "number" && `return ${short(entry.return)}`,
      entry.hand && `${entry.hand} by hand`, this.told?.task && `task: ${this.told.task}`, entry.error];
    $("facts").textContent = facts.filter(Boolean).join(" · ");
    const whole = this.editable && entry.steps !== undefined && !entry.dropped;
    for (const id of ["cutting", "judging"]) $(id).hidden = !this.editable;
    for (const id of ["success", "failure"]) button(id).disabled = !whole;
    button("drop").disabled = entry.dropped;
    button("original").disabled = !entry.edited;
    for (const id of ["first", "end"]) input(id).disabled = !whole;
  }

  showFlags() {
    const { told } = this, entry = /** @type {Entry} */ (this.entry), flags = entry.flags ?? [];
    const items = flags.map(({ kind, text, spans }) => {
      const item = document.createElement("li"), name = document.createElement("b");
      name.textContent = kind;
      item.append(name, ` ${text} `);
      if (spans.length) item.append(this.shortcut(`show step ${spans[0][0]}`, () => this.player.seek(spans[0][0])));
      return item;
    });
    if (entry.twin) {
      const item = document.createElement("li"), name = document.createElement("b");
      name.textContent = "duplicate";
      item.append(name, ` nearly equal to ${entry.twin}`);
      items.push(item);
    }
    $("flags").replaceChildren(...items);
    if (!told) return;
    const spans = { hand: told.spans.hand, idle: told.idle, flags: flags.filter(({ kind }) => kind !== "idle").flatMap((flag) => flag.spans), success: told.spans.success };
    const lanes = Object.entries(LANES).map(([key, [name, tint]]) => ({ name, colour: tint, spans: spans[/** @type {keyof typeof LANES} */ (key)] })).filter((lane) => lane.spans.length);
    const { selection } = this.timeline, stepsKey = `${entry.name} ${told.steps} ${told.cut}`;
    this.timeline.show(told.steps, lanes);
    if (selection && stepsKey === this.stepsKey) this.timeline.select(selection);
    this.stepsKey = stepsKey;
    $("legend").replaceChildren(...lanes.map(({ name, colour: tint }) => {
      const mark = document.createElement("i"), word = document.createElement("span");
      mark.style.setProperty("--tint", `var(--${tint})`);
      word.append(mark, name);
      return word;
    }));
  }

  /** @param {string} text @param {() => void} press */
  shortcut(text, press) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "chip";
    made.textContent = text;
    made.addEventListener("click", press);
    return made;
  }

  /** @returns {[number, number][]} */
  idleEnds() {
    const { told } = this;
    return told ? told.idle.filter(([first, end]) => (first === 0) !== (end === told.steps)) : [];
  }

  /** @param {number} step */
  showStep(step) {
    const { player } = this, seconds = (/** @type {number} */ steps) => (steps / player.fps).toFixed(1);
    input("scrub").value = String(step);
    input("scrub").setAttribute("aria-valuetext", `step ${step} of ${player.last}`);
    $("where").textContent = `step ${step} of ${player.last}, ${seconds(step)} of ${seconds(player.last)} s`;
    button("play").textContent = player.playing ? "Pause" : "Play";
    this.timeline.follow(step);
    this.curves.follow(step);
  }

  showSelection() {
    const { selection, steps } = this.timeline, able = Boolean(selection) && this.editable && !this.entry?.dropped;
    const [first, end] = selection ?? [NaN, NaN], atEnd = (first === 0) !== (end === steps);
    $("selection").textContent = selection ? `${end - first} of ${steps} steps selected.` : "Drag on the bar to choose steps.";
    input("first").value = selection ? String(first) : "";
    input("end").value = selection ? String(end) : "";
    button("keep").disabled = !able || end - first === steps;
    button("remove").disabled = !able || !atEnd;
    button("unselect").disabled = !selection;
    const idle = this.editable && !this.entry?.dropped ? this.nextIdle() : null;
    button("idle").hidden = !idle;
    button("idle").textContent = idle?.[0] === 0 ? "Select idle start" : "Select idle end";
  }

  /** @param {number} by */
  go(by) {
    this.player.pause();
    this.player.seek(this.player.step + by);
  }

  /** @param {[number, number]} span */
  choose(span) {
    this.timeline.select(span);
    this.player.seek(span[0] === 0 ? span[1] : span[0]);
  }

  /** The idle start; the idle end where there is no other, or the start is selected. */
  nextIdle() {
    const ends = this.idleEnds(), now = this.timeline.selection;
    const place = ends.findIndex(([first, end]) => now && first === now[0] && end === now[1]);
    return ends[(place + 1) % ends.length] ?? null;
  }

  chooseIdle() {
    const idle = this.nextIdle();
    if (idle) this.choose(idle);
  }

  keep() {
    const { selection, steps } = this.timeline;
    if (selection && selection[1] - selection[0] < steps) this.do("cut", { first: selection[0], end: selection[1] });
  }

  remove() {
    const { selection, steps } = this.timeline;
    if (!selection || (selection[0] === 0) === (selection[1] === steps)) return; // what is left is in one piece
    const [first, end] = selection[0] === 0 ? [selection[1], steps] : [0, selection[0]];
    this.do("cut", { first, end });
  }

  /** @param {number} side 0: the selection begins here, 1: it ends here */
  mark(side) {
    const { selection, steps } = this.timeline, here = this.player.step;
    const [first, end] = selection ?? [0, steps];
    this.timeline.select(side === 0 ? [here, Math.max(end, here + 1)] : [Math.min(first, here), here + 1]);
  }

  /** @param {"success" | "failure" | "cut" | "drop" | "undo"} deed @param {object} [more] */
  do(deed, more = {}) {
    const { entry } = this;
    const usable = { success: "success", failure: "failure", cut: "keep", drop: "drop", undo: "original" }[deed];
    if (!entry || !this.editable || deed !== "cut" && button(usable).disabled) return;
    const words = { success: "marked success", failure: "marked failure", cut: "cut", drop: "dropped", undo: "restored" }[deed];
    this.edits.do([{ name: entry.name, version: this.told ? this.toldVersion : entry.version }], deed, words, more);
  }

  /** @param {number} by */
  changeSpeed(by) {
    const speed = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(this.player.speed) + by))];
    this.player.setSpeed(speed);
    input("speed").value = String(speed);
  }
}
