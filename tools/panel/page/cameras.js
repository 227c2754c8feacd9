"use strict";
// The cameras, as large as the window allows; one that is clicked has all of the place until it is clicked again.

const views = {}; // camera -> its canvas
let enlarged = "";

async function see(bytes) {
  const length = bytes[0], name = new TextDecoder().decode(bytes.subarray(1, 1 + length));
  const view = views[name] ??= addView(name); // before the first wait: in the robot's order
  const image = await createImageBitmap(new Blob([bytes.subarray(1 + length)], { type: "image/jpeg" }));
  if (view.width !== image.width || view.height !== image.height) {
    view.width = image.width;
    view.height = image.height;
    layOut();
  }
  view.getContext("2d").drawImage(image, 0, 0);
  view.dataset.frames = Number(view.dataset.frames ?? 0) + 1;
}

function addView(name) {
  const figure = document.createElement("figure"), button = document.createElement("button");
  const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
  caption.textContent = name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `camera ${name}`);
  button.title = "enlarge";
  button.onclick = () => { enlarged = enlarged === name ? "" : name; layOut(); };
  button.append(canvas);
  figure.append(button, caption);
  $("cameras").append(figure);
  return canvas;
}

function layOut() {
  const area = $("cameras"), names = Object.keys(views), style = getComputedStyle(area);
  if (!names.length) return;
  const gap = parseFloat(style.columnGap) || 0, width = area.clientWidth, height = parseFloat(style.maxHeight) || area.clientWidth;
  const aspect = (name) => views[name].width / views[name].height || 1;
  const place = (name, tall) => {
    const figure = views[name].closest("figure"), wide = Math.min(tall * aspect(name), width);
    figure.style.width = `${wide}px`;
    figure.style.height = `${wide / aspect(name)}px`;
    views[name].parentElement.setAttribute("aria-pressed", String(name === enlarged));
    return wide;
  };
  const alone = views[enlarged] && names.length > 1;
  for (const name of names) views[name].closest("figure").hidden = alone && name !== enlarged;
  if (alone) {
    place(enlarged, height);
    return;
  }
  let best = 0;
  for (let columns = 1; columns <= names.length; columns++) {
    const rows = Math.ceil(names.length / columns), wide = (width - gap * (columns - 1)) / columns;
    const tall = Math.min((height - gap * (rows - 1)) / rows, ...names.map((name) => wide / aspect(name)));
    best = Math.max(best, tall);
  }
  for (const name of names) place(name, Math.floor(best));
}

new ResizeObserver(layOut).observe($("cameras"));
addEventListener("resize", layOut); // the height counts, too
