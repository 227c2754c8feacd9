"use strict";
// What has been: the success history and the events. The robot server keeps them; here is what it told.

const WINDOW = 20; // episodes of the moving success rate
const KEPT = { episode: 1000, event: 500, figures: 400 }; // as robot_server/history.py
const KINDS = { episode: "Episodes", stop: "Stops", drive: "Driving", link: "Link", log: "Other" };
const past = { episode: [], event: [], figures: [] };
const hidden = new Set(); // kinds that the log does not show
let successPlot = null, offline = null;

function takeHistory({ anew, entries, learner, names, offline: level, recorded }) {
  if (anew) {
    for (const type in past) past[type].length = 0;
    $("log").replaceChildren();
  }
  for (const entry of entries) {
    if (entry.type === "figures") while (past.figures.at(-1)?.updates >= entry.updates) past.figures.pop(); // the learner went back
    past[entry.type].push(entry);
    if (past[entry.type].length > KEPT[entry.type]) past[entry.type].shift();
    if (entry.type !== "figures") logEntry(entry);
  }
  offline = level;
  $("to-recorded").hidden = !recorded;
  nameValues(names);
  if (anew || entries.some(({ type }) => type === "episode")) showSuccess();
  showLearner(learner, past.figures);
}

// Success --------------------------------------------------------------------------------------------------------------

function wilson(successes, trials) { // as agent/run/statistics.py
  const z = 1.959964, rate = successes / trials, centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials);
  const half = z / (1 + z * z / trials) * Math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials));
  return [successes === 0 ? 0 : centre - half, successes === trials ? 1 : centre + half];
}

function successSeries(episodes) { // columns of the plot; discarded episodes do not count
  const columns = [[], [], [], [], [], [], []], recent = [];
  episodes.forEach(({ outcome }, number) => {
    const success = outcome === "success", counts = outcome !== "discarded";
    if (counts) recent.push(success);
    if (recent.length > WINDOW) recent.shift();
    const wins = recent.filter(Boolean).length, [low, high] = recent.length ? wilson(wins, recent.length) : [null, null];
    const row = [number + 1, high, low, recent.length ? wins / recent.length : null,
      counts && success ? 1 : null, counts && !success ? 0 : null, counts ? null : 0];
    row.forEach((value, column) => columns[column].push(value));
  });
  columns.push(episodes.map(() => offline));
  return columns;
}

function dots(label, name, filled) {
  const fill = () => filled ? colour(name) : "transparent";
  return { label, stroke: () => colour(name), paths: () => null, points: { show: true, size: 6, width: 1.5, stroke: () => colour(name), fill } };
}

function makeSuccessPlot() {
  const percent = (_, values) => values.map((value) => `${Math.round(100 * value)} %`);
  return makePlot($("success"), 150, {
    legend: { show: false }, cursor: { show: false },
    scales: { x: { time: false, range: (_, low, high) => [0.5, Math.max(WINDOW, high ?? 0) + 0.5] }, y: { range: [-0.06, 1.06] } },
    axes: [axis({ size: 22, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }), axis({ size: 44, splits: [0, 0.5, 1], values: percent })],
    bands: [{ series: [1, 2], fill: () => faint("blue", 0.18) }],
    series: [{}, line("at most", "blue", { width: 0 }), line("at least", "blue", { width: 0 }), line("rate", "blue"),
      dots("success", "green", true), dots("failure", "red", true), dots("discarded", "quiet", false),
      line("offline", "amber", { dash: [6, 4], width: 1.5 })],
  });
}

function showSuccess() {
  const episodes = past.episode.filter(({ outcome }) => outcome !== "reset");
  const counted = episodes.filter(({ outcome }) => outcome !== "discarded"), recent = counted.slice(-WINDOW);
  $("success-card").hidden = !episodes.length;
  if (!episodes.length) return;
  successPlot ??= makeSuccessPlot();
  successPlot.setData(successSeries(episodes));
  const wins = recent.filter(({ outcome }) => outcome === "success").length;
  const [low, high] = recent.length ? wilson(wins, recent.length).map((value) => Math.round(100 * value)) : [0, 100];
  const percent = recent.length ? Math.round(100 * wins / recent.length) : 0;
  const all = counted.filter(({ outcome }) => outcome === "success").length;
  const words = recent.length ? `last ${recent.length}: ${percent} % (95 % interval ${low} to ${high} %)` : "none counts yet";
  $("success-words").textContent = `${words}, of all ${counted.length}: ${all}`
    + (offline === null ? "" : `, offline policy: ${Math.round(100 * offline)} %`);
}

// Events ---------------------------------------------------------------------------------------------------------------

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB"); // 24 hours, whatever the browser's language
}

function episodeWords({ episode, outcome, steps, by_hand: byHand, return: sum }) {
  const words = [`${outcome === "reset" ? "reset " : ""}episode ${episode}: ${outcome}`, `${steps} steps`, `return ${short(sum)}`];
  if (byHand) words.push(`${byHand} by hand`);
  return words.join(", ");
}

function logEntry(entry) {
  const kind = entry.type === "episode" ? "episode" : entry.kind;
  const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("span");
  time.textContent = clock(entry.time_s);
  text.textContent = entry.type === "episode" ? episodeWords(entry) : entry.text;
  item.className = entry.type === "episode" ? entry.outcome : entry.warning ? "warning" : "";
  item.dataset.kind = kind;
  item.hidden = hidden.has(kind);
  item.append(time, text);
  $("log").prepend(item);
  while ($("log").childElementCount > KEPT.event) $("log").lastElementChild.remove();
}

for (const [kind, word] of Object.entries(KINDS)) {
  const button = document.createElement("button");
  button.textContent = word;
  button.className = "chip";
  button.setAttribute("aria-pressed", "true");
  button.onclick = () => {
    const off = hidden.delete(kind) ? false : Boolean(hidden.add(kind));
    button.setAttribute("aria-pressed", String(!off));
    for (const item of $("log").children) if (item.dataset.kind === kind) item.hidden = off;
  };
  $("log-kinds").append(button);
}
