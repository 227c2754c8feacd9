"use strict";
// The page holds nothing that matters: a robot that does not hear from it for 0.2 s holds the arm (robot_server/control.py).

const DRIVE_MS = 40;
const KEYS = { // axis of the motion, sign
  w: [0, 1], s: [0, -1], a: [1, 1], d: [1, -1], r: [2, 1], f: [2, -1],
  arrowup: [0, 1], arrowdown: [0, -1], arrowleft: [1, 1], arrowright: [1, -1],
  j: [3, -1], l: [3, 1], i: [4, 1], k: [4, -1], u: [5, 1], o: [5, -1],
};
const WORDS = { y: "success", n: "failure", enter: "end", backspace: "discard" };
const ROTATION = 0.6; // of the speed
const DEAD_BAND = 0.12;
const HOLD_MS = 1000; // Release, until it counts
const TWICE_MS = 700; // a second press of Pause within this time is not meant to resume
const NOTICE_MS = 8000;
const SILENT_MS = 2000;

let socket = null, told = {}, driving = false;
let wanted = null, wantedUntil = 0; // of the gripper: said for a moment, then it is as the robot has it
const held = new Set(); // keys
const pads = { "pad-xy": [0, 0], "pad-z": [0, 0], "pad-tip": [0, 0] };
let buttons = []; // of the gamepad, as they were
let heardAt = performance.now(), pausedAt = 0, notice = "", noticeUntil = 0;
let hold = null; // of Release: the stop that was seen when it began, and its timer

// The connection ------------------------------------------------------------------------------------------------------

function connect() {
  socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws" + location.search);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { for (const robot of [...stops.keys()]) pressStop(robot); };
  socket.onmessage = (message) => {
    if (typeof message.data === "string") hear(JSON.parse(message.data));
    else see(new Uint8Array(message.data));
  };
  socket.onclose = () => {
    letGo();
    endHold("");
    told = {};
    show({ away: "the page has lost its connection", state: {}, vectors: {} });
    robotsUnknown();
    setTimeout(connect, 1000);
  };
}

function send(message) {
  if (socket.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

function say(event) {
  const { stop, pause, at_s: seen_s } = told.state ?? {};
  if (!send({ event, stop, pause, seen_s })) warn(`${event} was not sent: no connection`);
}

function warn(text) {
  notice = text;
  noticeUntil = performance.now() + NOTICE_MS;
  showAlert(text);
}

function hear(message) {
  if (message.history) {
    takeHistory(message.history);
    return;
  }
  if (message.done) {
    if (message.done === "stop") stops.delete("");
    $("hint").textContent = `${message.done}: done`;
    return;
  }
  if (message.ignored) {
    if (message.ignored === "stop") stopFailed("");
    else if (["release", "resume", "pause"].includes(message.ignored)) warn(`Not done (${message.ignored}): ${message.why}`);
    else $("hint").textContent = `${message.ignored}: ${message.why}`;
    return;
  }
  heardAt = performance.now();
  told = message;
  followStops(message);
  show(message);
  showRobots(message);
}

// Driving -------------------------------------------------------------------------------------------------------------

function take() {
  if (told.state?.drivable === false) return;
  driving = true;
  $("hint").textContent = "";
  /** @type {HTMLElement} */ (document.activeElement)?.blur(); // or Space would press the button again
  showDriving();
}

function giveBack() {
  if (!driving) return;
  drive([0, 0, 0, 0, 0, 0], false);
  letGo();
}

function letGo() {
  driving = false;
  rest();
  showDriving();
}

function rest() {
  held.clear();
  for (const id in pads) movePad(id, 0, 0);
}

function motion() {
  const raw = [0, 0, 0, 0, 0, 0];
  for (const key of held) raw[KEYS[key][0]] += KEYS[key][1];
  const [left, right, tip] = [pads["pad-xy"], pads["pad-z"], pads["pad-tip"]];
  raw[0] += left[1]; raw[1] -= left[0]; raw[2] += right[1]; raw[5] -= right[0]; raw[4] += tip[1]; raw[3] += tip[0];
  const axes = gamepad()?.axes.map((value) => Math.abs(value) < DEAD_BAND ? 0 : value);
  if (axes) { raw[0] -= axes[1] ?? 0; raw[1] -= axes[0] ?? 0; raw[2] -= axes[3] ?? 0; raw[5] -= axes[2] ?? 0; }
  const speed = Number($("speed").value);
  return raw.map((value, axis) => Math.max(-1, Math.min(1, value)) * speed * (axis < 3 ? 1 : ROTATION));
}

function drive(asked, enabled) {
  const gripper = performance.now() < wantedUntil ? wanted : null;
  send({ drive: { motion: asked, gripper, enabled, seen: told.seen ?? -1 } });
}

function gamepad() {
  return [...navigator.getGamepads()].find((pad) => pad && pad.mapping === "standard");
}

function readButtons() {
  const pad = gamepad();
  const now = pad ? pad.buttons.map((button) => button.pressed) : [];
  const pressed = (number) => now[number] && !buttons[number];
  if (pressed(0) && driving) toggleGripper();
  if (pressed(1)) say("discard");
  if (pressed(2)) say("failure");
  if (pressed(3)) say("success");
  if (pressed(8)) togglePause();
  if (pressed(9)) say("end");
  buttons = now;
}

setInterval(() => {
  readButtons();
  if (driving && socket.bufferedAmount === 0) drive(motion(), true);
  if (socket.readyState === WebSocket.OPEN && performance.now() - heardAt > SILENT_MS && told.state) {
    endHold("");
    told = {};
    show({ away: "the page hears nothing from the robot's computer", state: {}, vectors: {} });
    robotsUnknown();
  }
}, DRIVE_MS);

function gripperClosed() {
  return (performance.now() < wantedUntil ? wanted : told.state?.gripper ?? -1) > 0;
}

function toggleGripper() {
  wanted = gripperClosed() ? -1 : 1;
  wantedUntil = performance.now() + 500;
  showDriving();
}

function togglePause() {
  say(told.state?.paused && performance.now() - pausedAt > TWICE_MS ? "resume" : "pause");
}

// Release: held for a second, of the stop that was seen when the hold began --------------------------------------------

function beginHold() {
  if (hold || !told.state?.stopped) return;
  hold = { stop: told.state.stop, timer: setTimeout(release, HOLD_MS) };
  $("release").classList.add("holding");
}

function endHold(why) {
  if (!hold) return;
  clearTimeout(hold.timer);
  hold = null;
  $("release").classList.remove("holding");
  if (why) warn(why);
}

function release() {
  const { stop } = hold;
  endHold("");
  if (!send({ event: "release", stop, seen_s: told.state?.at_s })) warn("release was not sent: no connection");
}

{
  const button = $("release");
  const outside = ({ clientX: x, clientY: y }) => {
    const box = button.getBoundingClientRect();
    return x < box.left || x > box.right || y < box.top || y > box.bottom;
  };
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return;
    button.setPointerCapture(event.pointerId);
    beginHold();
  });
  button.addEventListener("pointermove", (event) => { if (outside(event)) endHold(""); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur"])
    button.addEventListener(end, () => endHold(""));
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
  button.addEventListener("keydown", ({ key, repeat }) => { if (!repeat && (key === " " || key === "Enter")) beginHold(); });
  button.addEventListener("keyup", () => endHold(""));
}

// What is pressed -----------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (key === "escape") { if (!event.repeat) stopAll(); }
  else if (event.ctrlKey || event.altKey || event.metaKey) return;
  else if (key in KEYS) {
    if (!driving) return;
    if (offers(told.state?.motions ?? [], KEYS[key][0])) held.add(key);
  }
  else if (/** @type {Element} */ (event.target).closest?.("button, summary, input, a") && (key === " " || key === "enter")) return;
  else if (event.repeat) { /* once */ }
  else if (key === " ") { if (driving) toggleGripper(); }
  else if (key === "t") { if (driving) giveBack(); else take(); }
  else if (key === "p") togglePause();
  else if (key in WORDS) say(WORDS[key]);
  else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => held.delete(event.key.toLowerCase()));
window.addEventListener("blur", () => { rest(); endHold(""); });
document.addEventListener("visibilitychange", () => { if (document.hidden) { letGo(); endHold(""); } }); // says nothing: the arm is held

function movePad(id, x, y) {
  pads[id] = [x, y];
  $(id).firstElementChild.style.transform = `translate(calc(-50% + ${x * 75}%), calc(-50% - ${y * 75}%))`;
}

for (const id in pads) {
  const pad = $(id);
  const follow = (event) => {
    const box = pad.getBoundingClientRect(), half = box.width / 2;
    let x = (event.clientX - box.left) / half - 1, y = 1 - (event.clientY - box.top) / half;
    const length = Math.hypot(x, y);
    if (length > 1) { x /= length; y /= length; }
    movePad(id, Math.abs(x) < DEAD_BAND ? 0 : x, Math.abs(y) < DEAD_BAND ? 0 : y);
  };
  pad.addEventListener("pointerdown", (event) => {
    if (!driving) { $("hint").textContent = "take over first"; return; }
    pad.setPointerCapture(event.pointerId);
    follow(event);
  });
  pad.addEventListener("pointermove", (event) => { if (pad.hasPointerCapture(event.pointerId)) follow(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    pad.addEventListener(end, () => movePad(id, 0, 0));
}

$("pause").onclick = togglePause;
$("resume").onclick = () => say("resume"); // a driver who is silent holds the arm; this ends that, and no STOP
$("take").onclick = () => driving ? giveBack() : take();
$("gripper").onclick = toggleGripper;
for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#words button:not(#pause)")))
  button.onclick = () => say(button.dataset.event);

document.addEventListener("click", (event) => { // with the mouse: the next Space is for the gripper, not for this button
  if (event.detail) /** @type {any} */ (event.target).closest?.("main button, main summary")?.blur();
});

showDriving();
connect();
