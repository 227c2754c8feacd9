// Which episodes the list shows, and in which order; it is kept in the address, so that a reload and a link have it.

/** @typedef {import("./recorded_requests.js").Entry} Entry */
/**
 * @typedef {object} Filter Empty texts: no restriction.
 * @property {string} text
 * @property {string} outcome success or failure
 * @property {boolean} flagged
 * @property {boolean} hand
 * @property {boolean} edited
 * @property {string} flag one kind of flag
 * @property {string} robot
 * @property {string} stepsLow
 * @property {string} stepsHigh
 * @property {string} returnLow
 * @property {string} returnHigh
 * @property {string} sort
 * @property {boolean} down
 */

/** @type {Filter} */
export const ALL = { text: "", outcome: "", flagged: false, hand: false, edited: false, flag: "", robot: "",
  stepsLow: "", stepsHigh: "", returnLow: "", returnHigh: "", sort: "name", down: false };

/** Of an episode, duplicates among them. @param {Entry} entry */
export function kinds(entry) {
  const found = (entry.flags ?? []).map(({ kind }) => kind);
  return [...new Set(entry.twin ? [...found, "duplicate"] : found)];
}

/** A number as a person types it, with a comma too; NaN for none. @param {string} text */
export const typed = (text) => text.trim() === "" ? NaN : Number(text.trim().replace(",", "."));

/** @param {number | null | undefined} value @param {string} low @param {string} high */
function within(value, low, high) {
  const [least, most] = [typed(low), typed(high)];
  if (Number.isNaN(least) && Number.isNaN(most)) return true;
  return typeof value === "number" && !(value < least) && !(value > most);
}

/** @param {Filter} filter @returns {(entry: Entry) => boolean} */
function wanted(filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  return (entry) => {
    const text = `${entry.name} ${entry.robot ?? ""} ${entry.policy ?? ""} ${entry.marked ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word))
      && (!filter.outcome || entry.success === (filter.outcome === "success"))
      && (!filter.flagged || kinds(entry).length > 0 || Boolean(entry.error))
      && (!filter.hand || (entry.hand ?? 0) > 0)
      && (!filter.edited || entry.edited)
      && (!filter.flag || kinds(entry).includes(filter.flag))
      && (!filter.robot || entry.robot === filter.robot)
      && within(entry.steps, filter.stepsLow, filter.stepsHigh)
      && within(entry.return, filter.returnLow, filter.returnHigh);
  };
}

/** @type {Record<string, (entry: Entry) => number>} */
const KEYS = {
  steps: (entry) => entry.steps ?? -1,
  return: (entry) => entry.return ?? -Infinity,
  hand: (entry) => entry.hand ?? -1,
  flags: (entry) => kinds(entry).length,
};

/** @param {Entry[]} entries in the order of their names @param {Filter} filter */
export function chosen(entries, filter) {
  const found = entries.filter(wanted(filter)), key = KEYS[filter.sort];
  if (key) found.sort((one, other) => filter.down ? key(other) - key(one) : key(one) - key(other)); // stable
  else if (filter.down) found.reverse();
  return found;
}

/** @param {Filter} filter @param {string} name of the open episode */
export function toHash(filter, name) {
  const told = new URLSearchParams();
  for (const [key, value] of Object.entries(filter)) if (value !== ALL[/** @type {keyof Filter} */ (key)]) told.set(key, String(value));
  if (name) told.set("episode", name);
  return told.toString();
}

/** @param {string} hash @returns {{filter: Filter, name: string}} */
export function fromHash(hash) {
  const told = new URLSearchParams(hash.replace(/^#/, "")), filter = { ...ALL };
  for (const key of /** @type {(keyof Filter)[]} */ (Object.keys(ALL))) {
    const value = told.get(key);
    if (value !== null) Object.assign(filter, { [key]: typeof ALL[key] === "boolean" ? value === "true" : value });
  }
  if (!(filter.sort in KEYS)) filter.sort = "name";
  return { filter, name: told.get("episode") ?? "" };
}
