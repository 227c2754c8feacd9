"use strict";
// What the robot sees and does as numbers with names, each with the course of its last seconds.

const COURSE = 200; // newest values of each
const COURSE_MS = 50; // between two of them at least
const DRAW_MS = 200;
let valueNames = {}; // of the numbers of each vector, as far as they are known
const courses = new Map(); // "vector 3" -> { values, row }
let coursedAt = 0, coursesDrawnAt = 0;

function nameValues(names) {
  if (JSON.stringify(names) === JSON.stringify(valueNames)) return;
  valueNames = names;
  courses.clear();
  $("vectors").replaceChildren();
}

function takeValues(vectors, state) {
  const now = performance.now();
  if (now - coursedAt < COURSE_MS / 2) return;
  coursedAt = now;
  const shown = { action: state.action ?? [], ...vectors };
  if (Number.isFinite(state.reward)) shown.reward = [state.reward];
  for (const [vector, numbers] of Object.entries(shown)) {
    numbers.forEach((number, place) => {
      const key = `${vector} ${place}`;
      if (!courses.has(key)) courses.set(key, { values: [], row: valueRow(vector, place, numbers.length) });
      const { values } = courses.get(key);
      values.push(number);
      if (values.length > COURSE) values.shift();
    });
  }
  if ($("values").open && now - coursesDrawnAt > DRAW_MS) {
    coursesDrawnAt = now;
    courses.forEach(drawCourse);
  }
}

function valueRow(vector, place, length) {
  const row = document.createElement("tr"), name = document.createElement("th"), value = document.createElement("td");
  const cell = document.createElement("td"), course = document.createElement("canvas");
  const known = valueNames[vector]?.length === length ? valueNames[vector][place] : "";
  name.scope = "row";
  name.textContent = known ? (vector === "proprio" ? known : `${vector}: ${known}`) : length > 1 ? `${vector}.${place}` : vector;
  course.setAttribute("aria-hidden", "true");
  cell.append(course);
  row.append(name, value, cell);
  $("vectors").append(row);
  return { value, course };
}

function drawCourse({ values, row: { value, course } }) {
  const scale = devicePixelRatio, width = course.clientWidth * scale, height = course.clientHeight * scale;
  value.textContent = short(values.at(-1));
  if (!width) return;
  if (course.width !== width || course.height !== height) { course.width = width; course.height = height; }
  const finite = values.filter(Number.isFinite), low = Math.min(...finite), span = Math.max(...finite) - low || 1;
  const brush = course.getContext("2d");
  brush.clearRect(0, 0, width, height);
  brush.strokeStyle = colour("blue");
  brush.lineWidth = 1.5 * scale;
  brush.beginPath();
  values.forEach((number, place) => {
    if (!Number.isFinite(number)) return;
    brush.lineTo(width * (1 + (place - values.length) / COURSE), height * (0.9 - 0.8 * (number - low) / span));
  });
  brush.stroke();
}
