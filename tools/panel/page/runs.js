"use strict";
// The list of runs, which of them are chosen, and the look for news every few seconds.

const NEWS_MS = 5000, GOING_S = 120;
const share = (value) => value === null || value === undefined ? "" : `${Math.round(100 * value)} %`;
const whole = (value) => value === null || value === undefined ? "" : Math.round(value).toLocaleString("en");
/** @type {[string, (run: any) => string, (run: any) => any][]} */
const COLUMNS = [ // title, what a row shows, what it is sorted by
  ["run", ({ name }) => name, ({ name }) => name],
  ["offline", ({ offline }) => share(offline), ({ offline }) => offline],
  ["evaluated last", ({ evaluated }) => share(evaluated), ({ evaluated }) => evaluated],
  ["last 20 episodes", ({ success }) => share(success), ({ success }) => success],
  ["failed in training", ({ failed }) => share(failed), ({ failed }) => failed],
  ["regret", ({ regret }) => short(regret), ({ regret }) => regret],
  ["env steps", ({ env_steps: steps }) => whole(steps), ({ env_steps: steps }) => steps],
  ["updates", ({ updates }) => whole(updates), ({ updates }) => updates],
  ["minutes", ({ minutes }) => short(minutes), ({ minutes }) => minutes],
  ["last line", ({ changed_s: seconds }) => ago(seconds), ({ changed_s: seconds }) => seconds],
];
const taken = new Map(); // name of a chosen run -> number of its colour
const learnt = new Map(); // "curves", "settings" or "videos", and a run's name -> {state, told}
let rows = [], sorting = { column: 9, down: true }, drawing = 0;

function ago(seconds) {
  const minutes = (Date.now() / 1000 - seconds) / 60;
  if (minutes * 60 < GOING_S) return "now";
  if (minutes < 90) return `${Math.round(minutes)} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 60 / 24)} days ago`;
}

async function ask(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

function tell(problem) {
  $("alert").hidden = !problem;
  $("alert").textContent = problem;
}

function sorted() {
  const value = COLUMNS[sorting.column][2], word = $("filter").value.trim().toLowerCase();
  const some = rows.filter(({ name }) => name.toLowerCase().includes(word));
  const order = (/** @type {any} */ a, /** @type {any} */ b) => typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : Number(a) - Number(b);
  return some.sort((one, other) => {
    const [a, b] = [value(one) ?? null, value(other) ?? null];
    if (a === null || b === null) return Number(a === null) - Number(b === null); // what is not known comes last
    return sorting.down ? order(b, a) : order(a, b);
  });
}

function rowOf(run) {
  const row = document.createElement("tr"), first = document.createElement("td"), label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = taken.has(run.name);
  box.disabled = !box.checked && taken.size >= COLOURS || Boolean(run.error);
  box.onchange = () => choose(run.name, box.checked);
  label.append(box, swatchOf(run.name), run.name);
  first.append(label);
  row.append(first);
  if (run.error) {
    const why = cell(run.error);
    why.className = "bad";
    why.colSpan = COLUMNS.length - 1;
    row.append(why);
  } else row.append(...COLUMNS.slice(1).map(([, show]) => {
    const made = cell(show(run));
    made.className = "number";
    return made;
  }));
  return row;
}

function showList() {
  const focused = document.activeElement?.closest?.("#runs tbody label")?.textContent;
  const some = sorted();
  $("count").textContent = some.length === rows.length ? `${rows.length}` : `${some.length} of ${rows.length}`;
  $("none").hidden = rows.length > 0;
  document.querySelectorAll("#runs th").forEach((head, column) =>
    head.setAttribute("aria-sort", column !== sorting.column ? "none" : sorting.down ? "descending" : "ascending"));
  document.querySelector("#runs tbody").replaceChildren(...some.map(rowOf));
  for (const label of document.querySelectorAll("#runs tbody label"))
    if (focused && label.textContent === focused) label.querySelector("input").focus();
}

function choose(name, on) {
  if (!on) taken.delete(name);
  else {
    const used = new Set(taken.values());
    taken.set(name, [...Array(COLOURS).keys()].find((number) => !used.has(number)));
  }
  const address = new URL(location.href);
  address.searchParams.delete("run");
  for (const each of taken.keys()) address.searchParams.append("run", each);
  history.replaceState(null, "", address);
  showList();
  showChosen().catch(({ message }) => tell(message));
}

// What is not known yet of a run, or has changed since its last line, is asked for.
async function learn(what, name) {
  const state = rows.find((run) => run.name === name)?.changed_s, key = `${what} ${name}`;
  if (learnt.get(key)?.state !== state) learnt.set(key, { state, told: await ask(`api/${what}?run=${encodeURIComponent(name)}`) });
  return learnt.get(key).told;
}

// A later call makes an earlier one void.
async function showChosen() {
  const mine = ++drawing, names = [...taken.keys()].filter((name) => rows.some((run) => run.name === name && !run.error));
  $("compared").hidden = !names.length;
  $("how").hidden = names.length > 0;
  if (!names.length) return;
  const curves = await Promise.all(names.map((name) => learn("curves", name)));
  if (mine !== drawing) return;
  $("legend").replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    item.append(swatchOf(name), name);
    return item;
  }));
  drawRuns(names.map((name, at) => ({ name, colour: `run-${taken.get(name)}`, curves: curves[at] })), $("over").value);
  showWarnings(rows.filter(({ name }) => names.includes(name)));
  const videos = await Promise.all(names.map(async (name) => ({ name, videos: await learn("videos", name) })));
  if (mine !== drawing) return;
  showVideos(videos);
  const settings = await Promise.all(names.map(async (name) => ({ name, ...await learn("settings", name) })));
  if (mine === drawing) showSettings(settings);
}

function swatchOf(name) {
  const swatch = document.createElement("i");
  swatch.className = "swatch";
  if (taken.has(name)) swatch.style.background = `var(--run-${taken.get(name)})`;
  return swatch;
}

async function look() {
  try {
    const before = JSON.stringify(rows);
    rows = await ask("api/runs");
    tell("");
    if (JSON.stringify(rows) === before) return;
    showList();
    const stale = [...taken.keys()].some((name) => learnt.get(`curves ${name}`)?.state !== rows.find((run) => run.name === name)?.changed_s);
    if (stale) await showChosen();
  } catch ({ message }) {
    tell(`no answer from tools.runs: ${message}`);
  }
}

document.querySelector("#runs thead tr").append(...COLUMNS.map(([title], column) => {
  const head = document.createElement("th"), button = document.createElement("button");
  head.scope = "col";
  button.textContent = title;
  button.onclick = () => {
    sorting = { column, down: sorting.column === column ? !sorting.down : column > 0 };
    showList();
  };
  head.append(button);
  return head;
}));
$("filter").oninput = showList;
$("over").onchange = () => showChosen();
for (const name of new URL(location.href).searchParams.getAll("run").slice(0, COLOURS)) taken.set(name, taken.size);
look().then(showChosen).catch(({ message }) => tell(message));
setInterval(look, NEWS_MS);
