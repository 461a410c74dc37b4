// What the page tells its user: errors in a line, results read aloud.

import { ApiError } from "./api.js";
import { h, replace } from "./dom.js";
import { explained, t } from "./messages.js";

const box = document.getElementById("alert");

export function words(error) {
  if (!(error instanceof ApiError)) return error.message ?? String(error);
  if (error.status === 0) return t("error.unreachable");
  if (error.status === 401) return t("error.locked");
  return explained({ ...error.problem, error: error.message });
}

// Shows an error in the line above the view. What was cancelled is none, and a missing key is asked for elsewhere.
export function fail(error) {
  if (error?.name === "AbortError" || (error instanceof ApiError && error.status === 401)) return;
  if (!(error instanceof ApiError)) console.error(error);
  replace(box, h("span", {}, words(error)), h("button", { type: "button", class: "quiet", onclick: clear }, t("page.close")));
  box.hidden = false;
}

export function clear() {
  box.hidden = true;
  box.replaceChildren();
}

// Reads a text to those who do not see the page.
export function speak(text) {
  document.getElementById("spoken").textContent = text;
}

// Runs what a button does, once at a time, and shows its error.
export function guarded(action) {
  return async (event) => {
    const button = event?.currentTarget instanceof HTMLButtonElement ? event.currentTarget : null;
    if (button) button.disabled = true;
    try {
      return await action(event);
    } catch (error) {
      fail(error);
      return undefined;
    } finally {
      if (button) button.disabled = false;
    }
  };
}

// True where a key belongs to a control or to the browser, and is no command of the page.
export function isTyping(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return true;
  return event.target instanceof Element && event.target.closest("input:not([type=range]), textarea, select, dialog") !== null;
}
