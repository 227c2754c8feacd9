// Actions, rewards and states over the steps, with a cursor that is the player's, and each number by its name.

const HEIGHT = 120;
const SHOWN = 6; // of a vector's numbers, those that move most, before a person chooses
const COLOURS = 8; // --run-0 to --run-7 of panel.css

/** @typedef {import("./recorded_requests.js").Numbers} Numbers */
/** @typedef {import("./recorded_requests.js").Plot} Plot */

export class Curves {
  /** @param {HTMLElement} place @param {(step: number) => void} seek */
  constructor(place, seek) {
    this.place = place;
    this.seek = seek;
    this.step = 0;
    /** @type {{plot: any, follow: (step: number) => void}[]} */
    this.made = [];
    /** @type {Map<string, Set<number>>} title -> the numbers that a person hid; for the next episode, too */
    this.hidden = new Map();
  }

  /** @param {Numbers} told */
  show(told) {
    this.clear();
    this.made = told.plots.map((each) => this.card(each, told));
    this.follow(this.step);
  }

  /** @param {Plot} given @param {Numbers} told */
  card(given, told) {
    const { title, values, size } = given;
    const names = values.map((_, number) => given.names[number] || (size > 1 ? `${title}.${number}` : title));
    const hidden = this.hidden.get(title) ?? new Set(byMotion(values).slice(SHOWN));
    this.hidden.set(title, hidden);
    const card = document.createElement("section"), heading = document.createElement("h3"), graph = document.createElement("div");
    const legend = document.createElement("div");
    card.className = "curve";
    card.setAttribute("aria-label", title);
    heading.textContent = title + (size > values.length ? ` (${values.length} of ${size})` : "");
    graph.className = "plot";
    graph.setAttribute("role", "img");
    graph.setAttribute("aria-label", `${title} over the steps: ${names.join(", ")}`);
    legend.className = "names";
    card.append(heading, graph, legend);
    this.place.append(card);
    const tint = (/** @type {number} */ number) => `run-${number % COLOURS}`;
    const plot = makePlot(graph, HEIGHT, {
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 }, bind: MOUSELESS },
      scales: { x: { time: false, range: () => [0, told.steps] }, y: { range: spread } },
      axes: [axis({ size: 20, space: 50 }), axis({ size: 48, space: 26, values: (/** @type {any} */ _, /** @type {number[]} */ all) => all.map(short) })],
      series: [{}, ...names.map((name, number) => line(name, tint(number),
        { show: !hidden.has(number), width: 1.5, spanGaps: false, dash: number >= COLOURS ? [4, 3] : undefined }))],
    });
    plot.setData([told.x, ...values.map((column) => told.x.map((_, place) => column[place] ?? null))]);
    this.drag(plot);
    const cells = names.map((name, number) => {
      const button = document.createElement("button"), mark = document.createElement("i"), value = document.createElement("b");
      button.type = "button";
      button.className = "number";
      mark.style.setProperty("--tint", `var(--${tint(number)})`);
      button.append(mark, name, value);
      button.setAttribute("aria-pressed", String(!hidden.has(number)));
      button.title = "show or hide its curve";
      button.addEventListener("click", () => {
        const on = hidden.delete(number) || !hidden.add(number);
        button.setAttribute("aria-pressed", String(on));
        plot.setSeries(number + 1, { show: on });
      });
      legend.append(button);
      return value;
    });
    const stride = told.x.length > 1 ? told.x[1] : 1;
    const follow = (/** @type {number} */ step) => {
      plot.setCursor({ left: plot.valToPos(step, "x"), top: -10 }, false);
      const place = Math.min(Math.floor(step / stride), told.x.length - 1);
      cells.forEach((cell, number) => { cell.textContent = short(values[number][place] ?? null); });
    };
    return { plot, follow };
  }

  /** A press or a drag on a plot goes to that step. @param {any} plot */
  drag(plot) {
    const over = /** @type {HTMLElement} */ (plot.over);
    const go = (/** @type {PointerEvent} */ event) => this.seek(Math.floor(plot.posToVal(event.clientX - over.getBoundingClientRect().left, "x")));
    over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      over.setPointerCapture(event.pointerId);
      go(event);
    });
    over.addEventListener("pointermove", (event) => { if (over.hasPointerCapture(event.pointerId)) go(event); });
  }

  /** @param {number} step */
  follow(step) {
    this.step = step;
    for (const { follow } of this.made) follow(step);
  }

  clear() {
    for (const { plot } of this.made) forgetPlot(plot);
    this.made = [];
    this.place.replaceChildren();
  }
}

/** The numbers of a vector, the one that moves most first. @param {(number | null)[][]} values */
function byMotion(values) {
  const reach = values.map((column) => {
    const known = column.filter((value) => value !== null);
    return known.reduce((most, value) => Math.max(most, value), -Infinity) - known.reduce((least, value) => Math.min(least, value), Infinity);
  });
  return values.map((_, number) => number).sort((one, other) => reach[other] - reach[one]);
}

/** Of the values' axis; also where they are all the same. @param {any} _ @param {number | null} low @param {number | null} high */
function spread(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const margin = low === high ? Math.abs(low) / 2 || 0.5 : 0.05 * (high - low);
  return [low - margin, high + margin];
}

const none = () => null;
const MOUSELESS = { mousedown: none, mouseup: none, mousemove: none, mouseleave: none, mouseenter: none, dblclick: none, click: none };
