"use strict";
// Episodes of the folder that tools.panel was given; what is done to them is tools.edit's, and can be undone.

const $ = (id) => document.getElementById(id);

async function talk(asked) {
  const options = asked ? { method: "POST", body: JSON.stringify(asked) } : {};
  try {
    const answer = await fetch("api/episodes", options);
    const told = answer.ok || answer.status === 400 ? await answer.json() : { error: await answer.text() };
    $("alert").hidden = !told.error;
    $("alert").textContent = told.error ?? "";
    if (!told.error) show(told);
  } catch {
    $("alert").hidden = false;
    $("alert").textContent = "the page has lost its connection";
  }
}

function make(kind, text, properties = {}) {
  return Object.assign(document.createElement(kind), { textContent: text, ...properties });
}

function row(episode) {
  const item = make("li", "", { className: episode.dropped ? "dropped" : "" });
  item.dataset.name = episode.name;
  const say = (what, more) => talk({ name: episode.name, do: what, ...more });
  const words = [episode.name];
  if (episode.error) words.push(episode.error);
  else {
    words.push(`${episode.steps} steps`, `return ${episode.return}`, episode.success ? "success" : "no success");
    if (episode.marked) words.push(`marked ${episode.marked}`);
    if (episode.hand) words.push(`${episode.hand} steps by hand`);
    if (episode.dropped) words.push("dropped");
  }
  item.append(make("p", words.join("   "), { className: episode.success ? "good" : "" }));
  if (!episode.error)
    item.append(make("img", "", { src: `api/episodes/${episode.name}?${episode.steps}${episode.marked}`, alt: "", loading: "lazy" }));
  const buttons = make("div", "", { className: "row" });
  if (!episode.dropped && !episode.error) {
    const first = make("input", "", { type: "number", min: 0, max: episode.steps - 1, value: 0, ariaLabel: "first step" });
    const end = make("input", "", { type: "number", min: 1, max: episode.steps, value: episode.steps, ariaLabel: "end" });
    buttons.append(
      make("button", "Success", { onclick: () => say("success") }),
      make("button", "Failure", { onclick: () => say("failure") }),
      first, end,
      make("button", "Cut", { onclick: () => say("cut", { first: Number(first.value), end: Number(end.value) }) }),
    );
  }
  if (!episode.dropped) buttons.append(make("button", "Drop", { onclick: () => say("drop") }));
  if (episode.edited) buttons.append(make("button", "Undo", { onclick: () => say("undo") }));
  item.append(buttons);
  return item;
}

function show(episodes) {
  const there = episodes.filter((episode) => !episode.dropped && !episode.error);
  const good = there.filter((episode) => episode.success).length;
  $("count").textContent = `${there.length} episodes, ${good} successes`;
  $("recorded").replaceChildren(...episodes.map(row));
}

talk();
