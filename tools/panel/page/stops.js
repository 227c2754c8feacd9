"use strict";
// STOP, of the shown robot ("") and of others by their names: sent, confirmed, sent again. And the bar of the robots.
// No press of STOP releases anything.

const CONFIRM_MS = 1000; // a STOP that a robot has not confirmed by then is sent again
const stops = new Map(); // robot -> when STOP was sent, after which of its stops, and whether that takes too long
let others = []; // names of the robots beside the shown one
const rows = new Map(); // name -> what the bar has of it

/** @returns {any} */
function stateOf(/** @type {string} */ robot, /** @type {any} */ { away, state, robots }) {
  return robot === "" ? { ...state, away } : robots?.find(({ name }) => name === robot) ?? { away: true };
}

function pressStop(robot = "") {
  endHold("");
  const failed = stops.get(robot)?.failed ?? false;
  stops.set(robot, { at: performance.now(), seen: stateOf(robot, told).stop ?? Infinity, failed }); // unknown: only an answer confirms it
  if (!send(robot ? { event: "stop", robot } : { event: "stop" })) stopFailed(robot);
}

function stopAll() {
  for (const robot of ["", ...others]) pressStop(robot);
}

function stopFailed(robot) {
  if (stops.has(robot)) stops.get(robot).failed = true;
  showAlert(unconfirmed());
}

function unconfirmed() {
  const names = [...stops].filter(([, { failed }]) => failed).map(([robot]) => robot || "the robot");
  return names.length ? `STOP is not confirmed by ${names.join(", ")}. Use the robot's own emergency stop.` : "";
}

function followStops(message) { // a robot that is away gets it when it is back
  for (const [robot, { at, seen }] of [...stops]) {
    const state = stateOf(robot, message);
    if (state.stopped && state.stop > seen) stops.delete(robot);
    else if (performance.now() - at >= CONFIRM_MS) {
      stopFailed(robot);
      if (!state.away) pressStop(robot);
    }
  }
}

// The robots ----------------------------------------------------------------------------------------------------------

function showRobots({ shown, robots }) {
  others = (robots ?? []).map(({ name }) => name).filter((name) => name !== shown);
  $("robots").hidden = $("stop-all").hidden = !others.length;
  if (!others.length) return;
  for (const state of robots) {
    if (!rows.has(state.name)) rows.set(state.name, makeRow(state.name));
    const { link, pill, stop } = rows.get(state.name), what = whatOf(state), label = state.robot ?? state.name;
    const words = state.away ? "away" : state.fault || (WHAT[what] ?? what);
    if (pill.textContent !== words) pill.textContent = words;
    pill.className = `pill ${state.away ? "" : what}`;
    if (link.textContent !== label) {
      link.textContent = label;
      stop.textContent = `STOP ${label}`;
    }
    if (state.name === shown) link.setAttribute("aria-current", "page");
    stop.classList.toggle("latched", Boolean(state.stopped));
    stop.hidden = state.name === shown; // it has the large one
  }
}

function robotsUnknown() {
  for (const { pill } of rows.values()) {
    pill.textContent = "away";
    pill.className = "pill";
  }
}

function makeRow(name) {
  const item = document.createElement("div"), link = document.createElement("a");
  const pill = document.createElement("output"), stop = document.createElement("button");
  link.href = `?robot=${encodeURIComponent(name)}`;
  stop.className = "stop";
  stop.addEventListener("pointerdown", () => pressStop(name));
  stop.addEventListener("click", () => pressStop(name));
  item.append(link, pill, stop);
  $("robots").append(item);
  return { link, pill, stop };
}

$("stop").addEventListener("pointerdown", () => pressStop()); // at once
$("stop").addEventListener("click", () => pressStop()); // and by the keyboard
$("stop-all").addEventListener("pointerdown", stopAll);
$("stop-all").addEventListener("click", stopAll);
