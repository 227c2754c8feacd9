"use strict";
// The learner, as it told the robot server: where its run is, and its figures over its updates.

const STAGES = { warmup: "warm-up: data only, no updates", online: "online: learning from each step", finished: "finished" };
const LEARNER_PLOTS = [ // title, and figures with their label and colour
  ["Q and return", [["q_data", "Q", "blue"], ["return_to_go", "return", "green"]]],
  ["TD loss", [["td_loss", "TD loss", "blue"]]],
  ["actor loss", [["actor_loss", "actor loss", "blue"]]],
  ["entropy", [["entropy", "entropy", "blue"]]],
];
const CURVES = [ // along the newest episode: name, label, colour
  ["recorded_action", "Q of the action", "blue"], ["policy_action", "Q of the policy's", "amber"], ["return_to_go", "return", "green"],
];
const learnerPlots = new Map(); // title -> plot
let newestPlot = null;
const MINUTE = 60, HOUR = 3600;
const whole = (number) => number.toLocaleString("en");

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * MINUTE) return `${Math.round(seconds / MINUTE)} min`;
  return `${Math.floor(seconds / HOUR)} h ${Math.round(seconds % HOUR / MINUTE)} min`;
}

function showLearner(learner, figures) {
  const known = Boolean(learner.stage);
  $("learner-card").hidden = !known;
  if (!known) return;
  const left = Math.max(0, learner.env_steps_wanted - learner.env_steps), late = learner.updates_due - learner.updates;
  list("learner", [
    ["stage", STAGES[learner.stage]],
    ["env steps", `${whole(learner.env_steps)} of ${whole(learner.env_steps_wanted)}, ${whole(left)} left`],
    ["updates", `${whole(learner.updates)}` + (late > 0 ? `, ${whole(late)} more due` : ", none due")],
    ["to the end", learner.stage === "finished" ? "" : learner.seconds_left < 0 ? "not known yet" : duration(learner.seconds_left)],
    ["checkpoint", learner.checkpoint_age_s < 0 ? "none yet" : `${duration(learner.checkpoint_age_s)} ago`],
    ["episodes", whole(learner.episodes)],
    ["heard of", learner.age_s > 10 ? `${duration(learner.age_s)} ago` : "", true],
  ]);
  $("learner-warnings").replaceChildren(...[...learner.warnings].reverse().map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  for (const [title, lines] of LEARNER_PLOTS) plotFigures(title, lines, figures);
  showNewest(learner.newest_episode ?? {});
}

function showNewest({ number, updates, success, steps, ...curves }) {
  $("newest").hidden = !steps;
  if (!steps) return;
  const mean = ([name, label]) => `${label} ${short(curves[name].reduce((sum, value) => sum + value) / steps.length)}`;
  $("newest-title").textContent = `Q along episode ${number}`;
  $("newest-words").textContent = `${success ? "Success" : "Failure"}; critics after ${whole(updates)} updates. `
    + `Means: ${CURVES.map(mean).join(", ")}.`;
  newestPlot ??= makeFigures($("newest-plot"), "step", CURVES);
  newestPlot.setData([steps, ...CURVES.map(([name]) => curves[name])]);
}

function makeFigures(place, over, lines) { // lines: name, label, colour of each
  return makePlot(place, 92, {
    scales: { x: { time: false } },
    axes: [axis({ size: 20, space: 60, values: (_, values) => values.map(short) }),
      axis({ size: 44, space: 26, values: (_, values) => values.map(short) })],
    series: [{ label: over, value: (_, value) => value === null ? "" : whole(value) },
      ...lines.map(([, label, name]) => line(label, name))],
  });
}

function plotFigures(title, lines, figures) {
  const rows = figures.filter((row) => lines.some(([name]) => Number.isFinite(row[name])));
  if (rows.length < 2) return;
  const column = (name) => rows.map((row) => row[name] ?? null);
  if (!learnerPlots.has(title)) {
    const place = document.createElement("div");
    place.className = "plot";
    place.setAttribute("role", "img");
    $("learner-plots").append(place);
    learnerPlots.set(title, makeFigures(place, "update", lines));
  }
  const plot = learnerPlots.get(title), newest = rows.at(-1);
  plot.setData([column("updates"), ...lines.map(([name]) => column(name))]);
  const words = lines.map(([name, label]) => `${label} ${short(newest[name])}`);
  plot.root.parentElement.setAttribute("aria-label", `${title} over updates, now ${words.join(", ")}`);
}
