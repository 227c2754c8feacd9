"use strict";
// Keeps a phone's screen on. Browsers allow it on this computer (127.0.0.1, also through ssh -L) and by https only.

let wakeLock = null;

async function stayAwake() {
  try {
    if (!document.hidden && (!wakeLock || wakeLock.released)) wakeLock = await navigator.wakeLock?.request("screen");
  } catch { /* a battery that is low, or a setting */ }
}

document.addEventListener("visibilitychange", stayAwake);
stayAwake();
