"use strict";
// What the page shows of the robot's state; in each state what a person can do now.

const LATE_SHOWN_MS = 3000;
const UNITS = { load: "%", current: "mA", temperature: "°C" };
const WHAT = {
  stopped: "stopped", paused: "paused", driven: "a person drives", held: "held: the driver is silent", acting: "policy acts",
  waiting: "waits for your first motion", recording: "recording", ended: "ended: your verdict?",
  confirm: "verdict given: confirm it with End (Enter)",
};
const WAY = {
  stopped: "Inspect the arm, then hold Release below for a second.",
  paused: "Resume (P) continues.",
  held: "Take over (T) to drive on, or Resume: the policy acts again.",
  acting: "Take over (T) to drive. Pause (P) holds the arm between two steps.",
  waiting: "Start driving (T) and move: recording begins with the first motion.",
  recording: "Success (Y) or Failure (N) ends the episode.",
  ended: "Success (Y), Failure (N) or Discard (Backspace).",
  confirm: "End (Enter) confirms it; another verdict replaces it.",
};
let lateSeen = 0, lateUntil = 0;

function list(id, entries) {
  const parts = [];
  for (const [name, text, bad] of entries) {
    if (text === undefined || text === "") continue;
    const term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = name;
    value.textContent = text;
    if (bad) value.className = "bad";
    parts.push(term, value);
  }
  $(id).replaceChildren(...parts);
}

const effort = (row) => [
  ...Object.entries(UNITS).filter(([figure]) => figure in row).map(([figure, unit]) => `${Math.round(row[figure])} ${unit}`),
  row.error, row.relaxed && "relaxed",
].filter(Boolean).join("  ");
const ms = (seconds) => seconds === undefined ? undefined : `${Math.round(seconds * 1000)} ms`;

const whatOf = ({ stopped, paused, driven, state }) => stopped ? "stopped" : paused ? "paused" : driven || state || "acting";

function show(message) {
  const { away, late, state, vectors } = message;
  const link = state.link ?? {};
  const what = whatOf(state);
  $("robot").textContent = state.robot ?? "robot";
  document.title = `${state.robot ?? "robot"}: ${away ? "away" : WHAT[what] ?? what}`;
  $("what").textContent = away ? "away" : WHAT[what] ?? what;
  $("what").className = `pill ${away ? "" : what}`;
  $("way").textContent = away ? "The page reconnects by itself." : withKeys(wayOut(what, state));
  showAlert(alertOf(message));
  if (!state.stopped) endHold("");
  else if (hold && state.stop !== hold.stop) endHold("Someone pressed STOP again. Inspect the arm, then release.");
  pausedAt = state.paused ? pausedAt || performance.now() : 0;
  $("stop").classList.toggle("latched", Boolean(state.stopped));
  $("stopped").hidden = !state.stopped;
  $("stopped-why").textContent = `Stopped${state.fault ? `: ${state.fault}` : ""}. Inspect the arm first.`;
  $("task").textContent = state.task ? `Task: ${state.task}` : "";
  $("task").hidden = !state.task;
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  $("resume").hidden = what !== "held" || driving;
  const rate = state.episodes ? ` (${Math.round(100 * state.successes / state.episodes)} %)` : "";
  list("episode", [
    ["episodes", state.episodes === undefined ? undefined : `${state.episodes}, ${state.successes} successes${rate}`],
    ["discarded", state.discarded || ""],
    ["kept", state.kept === undefined ? undefined : `${state.kept} of ${state.asked}`],
    ["this one", state.step === undefined ? undefined : `step ${state.step}, return ${Number(state.return.toFixed(2))}`
      + (state.success ? ", success" : "")],
    ["policy", state.policy_version === undefined ? undefined
      : `version ${state.policy_version}, ${Math.round(state.policy_age_s ?? 0)} s old`],
  ]);
  list("link", [
    ["learner", link.address],
    ["run", link.run],
    ["round trip", link.round_trip_s ? ms(link.round_trip_s) : undefined],
    ["silent for", link.silent_s === undefined ? undefined : `${link.silent_s.toFixed(1)} s`, link.silent_s > 10],
    ["not sent yet", link.backlog === undefined ? undefined : `${link.backlog} steps`],
    ["reconnects", link.reconnects],
    ["arm's bus", state.lost_replies ? `${state.lost_replies} replies lost` : ""],
    ["page late", late ? `${late} commands came too late to drive by` : ""],
  ]);
  if (!away) showMotions(state.motions ?? []); // one that is away has them still
  const motors = Object.entries(state.motors ?? {});
  $("motors-card").hidden = !motors.length;
  list("motors", motors.map(([axis, row]) => [axis, effort(row), Boolean(row.over || row.error)]));
  showDriving();
  takeValues(vectors, state);
}

function wayOut(what, { prompt, drivable }) {
  if (what === "driven") return driving ? "You drive. Give back (T) lets the policy act." : "Somebody else drives. STOP is yours, too.";
  if (what === "paused" && prompt) return `${prompt.replace(/[.\s]*$/, ".")} Then Resume (P).`;
  if (what === "acting" && drivable === false) return "Pause (P) holds the arm between two steps.";
  return WAY[what] ?? "";
}

const touch = matchMedia("(pointer: coarse)");
const withKeys = (/** @type {string} */ text) => touch.matches ? text.replace(/ \((?:[A-Z]|Enter|Backspace)\)/g, "") : text;

function alertOf({ away, refused, late, late_s: lateS, state }) {
  const now = performance.now();
  if (late > lateSeen && driving) lateUntil = now + LATE_SHOWN_MS;
  lateSeen = late ?? 0;
  const tooLate = driving && now < lateUntil && `your commands arrive too late to drive by: ${ms(lateS)}, 200 ms at most`;
  return unconfirmed() || now < noticeUntil && notice || away || state.fault
    || refused && driving && `you do not drive: ${refused}` || tooLate || state.link?.full || state.link?.trouble || "";
}

function showAlert(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

const offers = (motions, number) => motions.length === 0 || motions.includes(number); // unknown: all of them

function showMotions(motions) { // only what the robot's actions have
  for (const part of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-motion]")))
    part.hidden = !part.dataset.motion.split(" ").some((number) => offers(motions, Number(number)));
}

function showDriving() {
  const { drivable, kept } = told.state ?? {}, cannot = drivable === false;
  const [take, back] = kept === undefined ? ["Take over", "Give back"] : ["Start driving", "Stop driving"];
  document.body.classList.toggle("driving", driving);
  document.body.classList.toggle("undrivable", cannot);
  $("take").textContent = driving ? back : take;
  $("take").setAttribute("aria-pressed", driving);
  $("take").disabled = cannot && !driving;
  $("gripper").disabled = !driving;
  $("gripper").setAttribute("aria-pressed", gripperClosed());
  $("gripper").textContent = gripperClosed() ? "Open gripper" : "Close gripper";
}
