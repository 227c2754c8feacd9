"use strict";

// uPlot asks for numbers in the browser's language, and WebKit's is "C" where the computer has none.
try {
  Intl.NumberFormat(navigator.language);
} catch {
  Object.defineProperty(navigator, "language", { value: "en" });
}

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
