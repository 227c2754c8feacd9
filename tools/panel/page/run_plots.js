"use strict";
// Curves of the chosen runs. Each run has a colour as long as it is chosen, its own x values, and so its own columns.

const WINDOW = 20; // training episodes of the moving success rate
const FIGURES = ["q_data", "td_loss", "actor_loss", "entropy"]; // of the updates, shown at first
const COLOURS = 8;
let runPlots = [];

const known = (values) => values.map((value) => value ?? null);

function moving(success) {
  let wins = 0;
  return success.map((won, at) => {
    wins += won - (at >= WINDOW ? success[at - WINDOW] : 0);
    return at + 1 < 5 ? null : wins / Math.min(at + 1, WINDOW); // of fewer than five episodes it says nothing
  });
}

function failedSoFar(success) {
  let failed = 0;
  return success.map((won) => failed += 1 - won);
}

// x values of the episodes, in env steps or minutes; minutes of an evaluation are those of the episode before it.
function places({ episodes, evaluations }, over) {
  const minutes = known(episodes.time_s).map((seconds) => seconds === null ? null : seconds / 60);
  if (over === "env_steps") return { episodes: known(episodes.env_steps), evaluations: known(evaluations.env_steps) };
  const at = (steps) => steps === 0 ? 0 : minutes[episodes.env_steps.findLastIndex((each) => each <= steps)] ?? null;
  return { episodes: minutes, evaluations: known(evaluations.env_steps).map(at) };
}

// uPlot wants one x column: the union of all, each curve with nulls where it has no value. A curve: {x, y, name, colour}.
function joined(curves) {
  const usable = curves.map(({ x, y }) => {
    const byX = new Map();
    x.forEach((place, at) => { if (place !== null && y[at] !== null && y[at] !== undefined) byX.set(place, y[at]); });
    return byX;
  });
  const every = [...new Set(usable.flatMap((byX) => [...byX.keys()]))].sort((a, b) => a - b);
  return [every, ...usable.map((byX) => every.map((place) => byX.get(place) ?? null))];
}

function curveSeries({ name, colour: colourName, dots }) {
  const series = line(name, colourName);
  if (!dots) return series;
  const fill = () => colour(colourName);
  return { ...series, paths: () => null, points: { show: true, size: 8, stroke: fill, fill } };
}

// A vertical line for the 95 % interval of each evaluation.
function intervals(curves) {
  return (plot) => {
    const { ctx: pen } = plot;
    pen.save();
    pen.lineWidth = 1.5 * devicePixelRatio;
    for (const { x, low, high, colour: name } of curves.filter((each) => each.low)) {
      pen.strokeStyle = faint(name, 0.7);
      pen.beginPath();
      x.forEach((place, at) => {
        if (place === null || low[at] === null || high[at] === null) return;
        const left = plot.valToPos(place, "x", true);
        pen.moveTo(left, plot.valToPos(low[at], "y", true));
        pen.lineTo(left, plot.valToPos(high[at], "y", true));
      });
      pen.stroke();
    }
    pen.restore();
  };
}

const percent = (_, values) => values.map((value) => `${Math.round(100 * value)} %`);
const numbers = (_, values) => values.map(short);

function draw(place, words, xLabel, curves, share) {
  const card = document.createElement("div"), shown = document.createElement("div");
  card.className = "card";
  const title = document.createElement("h2");
  title.append(words);
  shown.className = "plot";
  shown.setAttribute("role", "img");
  card.append(title, shown);
  place.append(card);
  const known = curves.filter(({ y }) => y.some((value) => value !== null && value !== undefined));
  const name = typeof words === "string" ? words : words.value.replaceAll("_", " ");
  shown.setAttribute("aria-label", `${name} over ${xLabel}: `
    + (known.map(({ name: run, y }) => `${run} ${short(y.filter((value) => value !== null).at(-1))} at the end`).join(", ") || "nothing yet"));
  if (!known.length) {
    shown.textContent = "Nothing in these logs yet.";
    return;
  }
  const plot = makePlot(shown, 220, {
    padding: [6, 18, 0, 0],
    scales: { x: { time: false }, y: share ? { range: [-0.03, 1.03] } : {} },
    axes: [axis({ size: 34, space: 70, values: numbers, label: xLabel, labelSize: 16, labelFont: "11px system-ui, sans-serif" }),
      axis({ size: 48, space: 30, values: share ? percent : numbers })],
    series: [{ label: xLabel, value: (_, value) => value === null ? "" : short(value) }, ...known.map(curveSeries)],
    hooks: { draw: [intervals(known)] },
  });
  plot.setData(joined(known));
  runPlots.push(plot);
}

// chosen: [{name, colour, curves}], as the server tells them.
function drawRuns(chosen, over) {
  for (const plot of runPlots) forgetPlot(plot);
  runPlots = [];
  const place = $("figures"), xLabel = over === "env_steps" ? "env steps" : "minutes of the run";
  place.replaceChildren();
  const success = [], failed = [];
  for (const { name, colour: colourName, curves } of chosen) {
    const x = places(curves, over), won = known(curves.episodes.success);
    success.push({ name, colour: colourName, x: x.episodes, y: moving(won) });
    success.push({ name: `${name}, evaluated`, colour: colourName, x: x.evaluations, y: known(curves.evaluations.success),
      low: known(curves.evaluations.low), high: known(curves.evaluations.high), dots: true });
    failed.push({ name, colour: colourName, x: x.episodes, y: failedSoFar(won) });
  }
  draw(place, `Success, last ${WINDOW} episodes; dots: evaluations with their 95 % interval`, xLabel, success, true);
  draw(place, "Failed episodes so far", xLabel, failed, false);
  const names = [...new Set(chosen.flatMap(({ curves }) => Object.keys(curves.updates)))].filter((name) => name !== "updates");
  FIGURES.forEach((figure, number) => {
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", `figure ${number + 1} of the updates`);
    choice.append(...names.map((name) => new Option(name.replaceAll("_", " "), name)));
    choice.value = figure;
    choice.onchange = () => {
      FIGURES[number] = choice.value;
      drawRuns(chosen, over);
    };
    draw(place, choice, "updates", chosen.map(({ name, colour: colourName, curves }) =>
      ({ name, colour: colourName, x: known(curves.updates.updates), y: known(curves.updates[figure] ?? []) })), false);
  });
}
