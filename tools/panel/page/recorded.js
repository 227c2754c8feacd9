// The page of recorded episodes: the list beside the chosen one. What is done to an episode is tools.edit's.

import { called, Edits } from "./recorded_edits.js";
import { Episode } from "./recorded_episode.js";
import { chosen, fromHash, kinds, toHash } from "./recorded_filter.js";
import { Form } from "./recorded_form.js";
import { List } from "./recorded_list.js";
import { listed } from "./recorded_requests.js";
import { Ticks } from "./recorded_several.js";

/** @typedef {import("./recorded_requests.js").Entry} Entry */

const READING_MS = 400; // between two looks at the server while it reads
const QUIET_MS = 3000; // and later: new episodes may come
const SAID_MS = 5000;

/** @type {Map<string, Entry>} in the order of the names */
const entries = new Map();
let boot = "", stamp = 0, editable = false, failed = "", interrupted = "", said = "", saidUntil = 0;
const begun = fromHash(location.hash);

const fail = (/** @type {unknown} */ error) => alertWith(error instanceof Error ? error.message : String(error));
const edits = new Edits(edited, (error) => { fail(error); look(); }); // it may be as somebody else has left it
const ticks = new Ticks(edits, () => list.draw(), say);
const list = new List($("list"), $("rows"), open, ticks);
const episode = new Episode(edits, fail);
const form = new Form(begun.filter, () => { remember(); showList(); });

/** @param {string} text */
function alertWith(text) {
  failed = text;
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function remember() {
  const hash = toHash(form.filter, list.name);
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
}

/** @param {string} name */
function open(name) {
  const entry = entries.get(name);
  if (!entry) return;
  list.choose(name);
  alertWith("");
  document.body.classList.add("open");
  $("none").hidden = true;
  $("episode").hidden = false;
  episode.show(entry, editable);
  remember();
}

function close() {
  document.body.classList.remove("open");
  episode.player.pause();
  $("list").focus();
}

/** @param {Entry[]} changed @param {string} words */
function edited(changed, words) {
  for (const entry of changed) entries.set(entry.name, entry);
  alertWith("");
  say(`${called(changed.map(({ name }) => name))}: ${words}`);
  showList();
  if (changed.length === 1) open(changed[0].name);
  else for (const entry of changed) if (entry.name === list.name) episode.show(entry, editable);
  look();
}

/** @param {string} words */
function say(words) {
  said = words;
  saidUntil = performance.now() + SAID_MS;
  $("progress").textContent = words;
}

function showList() {
  const all = [...entries.values()], there = all.filter((entry) => !entry.dropped && entry.steps !== undefined);
  const good = there.filter(({ success }) => success).length, known = there.filter(({ success }) => typeof success === "boolean").length;
  $("count").textContent = `${there.length} episodes` + (known ? `, ${good} successes` : "");
  const found = chosen(all, form.filter);
  list.show(found);
  $("found").textContent = found.length === all.length ? `${all.length} episodes` : `${found.length} of ${all.length} episodes`;
  form.offer("f-robot", all.map(({ robot }) => robot ?? ""));
  form.offer("f-flag", all.flatMap(kinds));
}

/** @param {import("./recorded_requests.js").Listed} told */
function take(told) {
  if (told.anew) entries.clear();
  for (const entry of told.episodes) entries.set(entry.name, entry);
  if (told.episodes.length) {
    const sorted = [...entries].sort(([one], [other]) => one < other ? -1 : 1);
    if (told.source.kind === "episodes") {
      entries.clear();
      for (const [name, entry] of sorted) entries.set(name, entry);
    }
  }
  ({ boot, stamp } = told);
  editable = ticks.able = told.source.editable;
  document.title = `${told.source.name}: recorded episodes`;
  if (told.trouble) alertWith(told.trouble);
  const interruption = told.interrupted === interrupted ? "" : told.interrupted;
  interrupted = told.interrupted;
  if (performance.now() >= saidUntil) said = "";
  $("progress").textContent = said || (told.pending ? `reading, ${told.pending} to go` : told.unexamined ? `looking for flags, ${told.unexamined} to go` : "");
  if (told.episodes.length || told.anew) showEntries();
  if (interruption) alertWith(interruption);
}

function showEntries() {
  showList();
  const name = list.name || begun.name, entry = entries.get(name);
  if (!entry) return;
  if (list.name) episode.show(entry, editable);
  else open(name);
}

let looking = false, again = false, timer = 0;

async function look() {
  clearTimeout(timer);
  again = looking; // what is under way may have looked before what has just happened
  if (looking) return;
  looking = true;
  let wait = QUIET_MS;
  try {
    const told = await listed(stamp, boot);
    if (failed === "the page has lost its connection") alertWith("");
    take(told);
    if (told.pending || told.unexamined) wait = READING_MS;
  } catch (error) {
    fail(error);
  }
  looking = false;
  if (again) look();
  else timer = setTimeout(look, document.hidden ? 5 * wait : wait);
}

// Keys -----------------------------------------------------------------------------------------------------------------

const { player, timeline } = episode;
/** @type {Record<string, (event: KeyboardEvent) => void>} */
const KEYS = {
  " ": () => player.toggle(),
  arrowleft: ({ shiftKey }) => episode.go(shiftKey ? -10 : -1),
  arrowright: ({ shiftKey }) => episode.go(shiftKey ? 10 : 1),
  home: () => episode.go(-Infinity),
  end: () => episode.go(Infinity),
  arrowup: ({ shiftKey }) => step(-1, shiftKey),
  arrowdown: ({ shiftKey }) => step(1, shiftKey),
  s: ({ shiftKey }) => { if (shiftKey) ticks.upTo(list.name, list.name); else ticks.toggle(list.name); },
  "-": () => episode.changeSpeed(-1),
  "+": () => episode.changeSpeed(1),
  "=": () => episode.changeSpeed(1),
  "[": () => episode.mark(0),
  "]": () => episode.mark(1),
  i: () => episode.chooseIdle(),
  k: () => episode.keep(),
  x: () => episode.remove(),
  y: () => judge("success"),
  n: () => judge("failure"),
  delete: () => judge("drop"),
  u: () => edits.undo(),
  "/": () => $("f-text").focus(),
  "?": () => dialog.showModal(),
  escape: () => { if (ticks.names.size) ticks.clear(); else if (timeline.selection) timeline.select(null); else close(); },
};
const ALONE = new Set(["arrowup", "arrowdown", "/", "?", "u"]); // of use without an open episode
const OF_SEVERAL = new Set(["y", "n", "delete", "escape"]); // also while several are selected

/** @param {number} by @param {boolean} ticking */
function step(by, ticking) {
  if (ticking) ticks.add(list.name);
  list.move(by);
  if (ticking) ticks.add(list.name);
}

/** Of the selected episodes, or of the open one. @param {"success" | "failure" | "drop"} deed */
function judge(deed) {
  if (ticks.names.size) ticks.do(deed); else episode.do(deed);
}

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), target = /** @type {HTMLElement} */ (event.target);
  if (dialog.open) return;
  if ((event.ctrlKey || event.metaKey) && key === "z" && !target.matches("input[type=search], input[inputmode]")) {
    if (event.shiftKey) edits.redo(); else edits.undo();
    event.preventDefault();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && key === "a" && !target.matches("input, select")) {
    ticks.all();
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (target.matches("input[type=search], input[inputmode]")) {
    if (key === "escape") target.blur();
    if (key === "arrowdown" && target.id === "f-text") $("list").focus();
    return;
  }
  if (target.matches("select, input[type=range]") && key.startsWith("arrow")) return;
  if (target.matches("select, button, summary, a") && (key === " " || key === "enter")) return;
  if (!(key in KEYS) || !list.name && !ALONE.has(key) && !(ticks.names.size && OF_SEVERAL.has(key))) return;
  KEYS[key](event);
  event.preventDefault();
});

document.addEventListener("click", (event) => { // with the mouse: the next Space plays
  if (event.detail) /** @type {HTMLElement} */ (event.target).closest("button")?.blur();
});

const dialog = /** @type {HTMLDialogElement} */ ($("keys"));
$("help").addEventListener("click", () => dialog.showModal());
$("back").addEventListener("click", close);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
