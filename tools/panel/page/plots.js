"use strict";
// Plots of the pages, drawn by uPlot (uPlot.iife.min.js, version 1.6.32, MIT: uPlot.LICENSE.txt). Colours are those of panel.css.

/** @type {Record<string, string>} */
const colours = {}; // name in panel.css -> what a canvas understands; emptied when it gets dark or light

/** @param {string} name */
function colour(name) {
  if (!colours[name]) {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    colours[name] = getComputedStyle(probe).color;
    probe.remove();
  }
  return colours[name];
}

/** @param {string} name @param {number} opacity */
const faint = (name, opacity) => colour(name).replace(/^rgb\((.*)\)$/, `rgba($1, ${opacity})`);
/** @type {Set<any>} */
const drawn = new Set();

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name in colours) delete colours[name];
  for (const plot of drawn) plot.redraw();
});

/** @param {object} more */
function axis(more) {
  return { stroke: () => colour("quiet"), font: "11px system-ui, sans-serif", gap: 3,
    grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false }, ...more };
}

/** @param {string} label @param {string} name @param {object} [more] */
function line(label, name, more = {}) {
  return { label, stroke: () => colour(name), width: 2, points: { show: false }, spanGaps: true,
    value: (/** @type {any} */ _, /** @type {number | null} */ value) => value === null ? "" : short(value), ...more };
}

/** @param {number | null | undefined} value */
function short(value) { // a decimal point in every language
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

// A plot that fills the width of `place`. options: series, scales, axes, bands and legend as uPlot has them.
/** @param {HTMLElement} place @param {number} height @param {any} options @returns {any} */
function makePlot(place, height, options) {
  const plot = new uPlot({
    width: Math.max(80, place.clientWidth), height, cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    padding: [6, 16, 0, 0], ...options,
  }, options.series.map(() => /** @type {number[]} */ ([])), place);
  drawn.add(plot);
  plot.watching = new ResizeObserver(() => {
    if (place.clientWidth) plot.setSize({ width: place.clientWidth, height });
  });
  plot.watching.observe(place);
  return plot;
}

/** @param {any} plot */
function forgetPlot(plot) {
  plot.watching.disconnect();
  drawn.delete(plot);
  plot.destroy();
}
