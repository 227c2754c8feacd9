"use strict";
// Beside the curves of the chosen runs: settings that differ, the learner's warnings, videos.

/** @returns {any} */
const cell = (/** @type {string} */ text, kind = "td") => {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
};

const shown = (value) => value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);

// told: [{name, settings, error}]
function showSettings(told) { // of a large checkpoint they take a while
  const table = $("settings");
  table.replaceChildren();
  const readable = told.filter(({ settings }) => settings && Object.keys(settings).length);
  const missing = told.filter((run) => !readable.includes(run)).map(({ name, error }) => `${name}: ${error ?? "no checkpoint yet"}`);
  const names = [...new Set(readable.flatMap(({ settings }) => Object.keys(settings)))].sort();
  const differing = names.filter((name) => new Set(readable.map(({ settings }) => JSON.stringify(settings[name]))).size > 1);
  if (readable.length > 1 && differing.length) {
    const head = document.createElement("tr");
    head.append(cell("setting", "th"), ...readable.map(({ name }) => cell(name, "th")));
    table.append(head, ...differing.map((name) => {
      const row = document.createElement("tr");
      row.append(cell(name, "th"), ...readable.map(({ settings }) => cell(shown(settings[name]))));
      return row;
    }));
  }
  const same = readable.length < 2 ? "Two runs with a checkpoint are needed." : `${names.length - differing.length} settings are the same in all.`;
  $("settings-words").textContent = [same, ...missing].join(" ");
}

function showWarnings(rows) {
  const lines = rows.flatMap(({ name, warnings }) => (warnings ?? []).map((text) => `${name}: ${text}`));
  $("warnings").replaceChildren(...(lines.length ? lines : ["None."]).map((text) => cell(text, "li")));
}

// told: [{name, videos}]
function showVideos(told) {
  if ($("videos").querySelector("figure")) return; // somebody looks at one
  const rows = told.map(({ name, videos }) => {
    const row = document.createElement("div"), label = document.createElement("span");
    row.className = "row";
    label.textContent = videos.length ? `${name}:` : `${name}: none. python -m tools.evaluate --ckpt …/latest.pt --video …/videos makes some.`;
    row.append(label, ...videos.slice(0, 30).map((video) => {
      const button = document.createElement("button");
      button.textContent = video;
      button.onclick = () => play(name, video);
      return button;
    }));
    return row;
  });
  $("videos").replaceChildren(...rows);
}

function play(name, video) {
  $("videos").querySelector("figure")?.remove();
  const figure = document.createElement("figure"), screen = document.createElement("video");
  screen.src = `api/video?run=${encodeURIComponent(name)}&video=${encodeURIComponent(video)}`;
  screen.controls = screen.autoplay = screen.loop = screen.muted = true;
  figure.append(screen, cell(`${name}, ${video}`, "figcaption"));
  $("videos").append(figure);
}
