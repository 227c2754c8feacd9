// The form of the filter: what a person chose, and back.

import { ALL } from "./recorded_filter.js";

/** @typedef {import("./recorded_filter.js").Filter} Filter */

const FIELDS = { text: "f-text", flag: "f-flag", robot: "f-robot", stepsLow: "f-steps-low", stepsHigh: "f-steps-high",
  returnLow: "f-return-low", returnHigh: "f-return-high", sort: "sort" };
const SWITCHES = { flagged: "[data-flagged]", hand: "[data-hand]", edited: "[data-edited]", down: "#down" };
const field = (/** @type {string} */ id) => /** @type {HTMLInputElement | HTMLSelectElement} */ ($(id));
const form = /** @type {HTMLFormElement} */ ($("filter"));
const button = (/** @type {string} */ place) => /** @type {HTMLButtonElement} */ (form.querySelector(place));

export class Form {
  /** @param {Filter} filter @param {(filter: Filter) => void} changed */
  constructor(filter, changed) {
    this.filter = filter;
    this.changed = changed;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      for (const [key, id] of Object.entries(FIELDS)) Object.assign(this.filter, { [key]: field(id).value });
      this.tell();
    });
    for (const [key, place] of Object.entries(SWITCHES)) {
      button(place).addEventListener("click", () => {
        Object.assign(this.filter, { [key]: !this.filter[/** @type {keyof Filter} */ (key)] });
        this.tell();
      });
    }
    for (const each of /** @type {NodeListOf<HTMLButtonElement>} */ (form.querySelectorAll("[data-outcome]"))) {
      each.addEventListener("click", () => {
        const outcome = each.dataset.outcome ?? "";
        this.filter.outcome = this.filter.outcome === outcome ? "" : outcome;
        this.tell();
      });
    }
    button("#clear").addEventListener("click", () => {
      Object.assign(this.filter, { ...ALL, sort: this.filter.sort, down: this.filter.down });
      this.tell();
    });
    this.draw();
  }

  tell() {
    this.draw();
    this.changed(this.filter);
  }

  draw() {
    const { filter } = this;
    for (const [key, id] of Object.entries(FIELDS)) {
      const value = String(filter[/** @type {keyof Filter} */ (key)]);
      if (field(id).value !== value) field(id).value = value;
    }
    for (const [key, place] of Object.entries(SWITCHES)) button(place).setAttribute("aria-pressed", String(filter[/** @type {keyof Filter} */ (key)]));
    for (const each of /** @type {NodeListOf<HTMLButtonElement>} */ (form.querySelectorAll("[data-outcome]")))
      each.setAttribute("aria-pressed", String(each.dataset.outcome === filter.outcome));
    const { sort, down, ...rest } = filter;
    button("#clear").hidden = Object.entries(rest).every(([key, value]) => value === ALL[/** @type {keyof Filter} */ (key)]);
    const more = [filter.flag, filter.robot, filter.stepsLow, filter.stepsHigh, filter.returnLow, filter.returnHigh];
    if (more.some(Boolean)) /** @type {HTMLDetailsElement} */ ($("more")).open = true;
  }

  /** What can be chosen. @param {string} id @param {string[]} values */
  offer(id, values) {
    const select = /** @type {HTMLSelectElement} */ (field(id)), chosen = id === "f-robot" ? this.filter.robot : this.filter.flag;
    const wanted = [...new Set([...values, chosen].filter(Boolean))].sort();
    if ([...select.options].slice(1).map(({ value }) => value).join("\n") === wanted.join("\n")) return;
    select.replaceChildren(select.options[0], ...wanted.map((value) => new Option(value, value)));
    select.value = chosen;
  }
}
