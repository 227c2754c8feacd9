// What the page asks its server for, and what comes back.

/** @typedef {{kind: string, text: string, spans: [number, number][]}} Flag */
/**
 * @typedef {object} Entry An episode of the list. Without steps: not read yet, or error. success, return: null where the source does not say.
 * @property {string} name
 * @property {boolean} edited
 * @property {boolean} dropped
 * @property {string} version of the file: an edit names the one that was seen
 * @property {number} changed grows with every change
 * @property {string} [error]
 * @property {number} [steps]
 * @property {boolean | null} [success]
 * @property {number | null} [return]
 * @property {number} [hand]
 * @property {string} [marked]
 * @property {string} [robot]
 * @property {string} [policy]
 * @property {boolean} [images]
 * @property {string} [twin] the earlier episode that it is nearly equal to
 * @property {Flag[] | null} flags null: not examined yet
 */
/**
 * @typedef {object} Listed
 * @property {{name: string, kind: string, editable: boolean}} source
 * @property {string} boot
 * @property {number} stamp
 * @property {boolean} anew
 * @property {Entry[]} episodes
 * @property {number} pending
 * @property {number} unexamined
 * @property {string} trouble
 * @property {string} interrupted an edit before the server's start, which was taken back
 */
/** @typedef {{title: string, names: string[], values: (number | null)[][], size: number}} Plot */
/**
 * @typedef {object} Numbers Of one episode.
 * @property {number} steps
 * @property {number | null} fps
 * @property {Record<string, [number, number]>} cameras height and width
 * @property {number[]} x the steps of the plots' values
 * @property {Plot[]} plots
 * @property {{hand: [number, number][], success: [number, number][]}} spans
 * @property {[number, number][]} idle
 * @property {string} cut where its steps are in what was recorded
 * @property {string} task
 */

const BASE = "api/episodes";
/** The server did not answer: nobody knows whether it did what was asked. */
export class Unanswered extends Error {}

/** @param {string} name @param {string} what */
export const address = (name, what) => `${BASE}/${encodeURIComponent(name)}/${what}`;

/** @param {Response} answer */
async function checked(answer) {
  if (answer.ok) return answer;
  const text = await answer.text();
  let line = text;
  try { line = JSON.parse(text).error ?? text; } catch { /* plain text */ }
  throw new Error(line);
}

/** @param {string} url @param {RequestInit} [options] */
export async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new Unanswered("the page has lost its connection");
  }
  return checked(answer);
}

/** @param {number} since @param {string} boot @returns {Promise<Listed>} */
export const listed = async (since, boot) => (await ask(`${BASE}?since=${since}&boot=${boot}`)).json();

/** @param {string} name @param {AbortSignal} signal @returns {Promise<Numbers>} */
export const numbers = async (name, signal) => (await ask(address(name, "numbers"), { signal })).json();

/** versions: of each file, before and after. @param {object} asked @returns {Promise<{edit: number, versions: Record<string, [string, string]>, entries: Entry[]}>} */
export const change = async (asked) => (await ask(BASE, { method: "POST", body: JSON.stringify(asked) })).json();
