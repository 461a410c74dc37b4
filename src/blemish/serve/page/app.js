// The page: navigation, language, theme, keys, and what all views share.

import { events, get, listen, post } from "./api.js";
import { field, h, options, replace } from "./dom.js";
import { language, languages, preferred, remember, remembered, t, useLanguage } from "./messages.js";
import { clear, fail, isTyping, words } from "./notices.js";
import * as decision from "./views/decision.js";
import * as history from "./views/history.js";
import * as line from "./views/line.js";
import * as live from "./views/live.js";
import * as models from "./views/models.js";
import * as scores from "./views/scores.js";
import * as upload from "./views/upload.js";
import * as whatIf from "./views/what_if.js";

const VIEWS = { live, decision, history, scores, "what-if": whatIf, upload, line, models };
const SHOWN = ["live", "history", "scores", "what-if", "upload", "line", "models"];
const main = document.getElementById("main");
const nav = document.getElementById("nav");
let leave = null;

// -- navigation ----------------------------------------------------------------------------------------

function place() {
  const [path, query = ""] = location.hash.replace(/^#\//, "").split("?");
  const [view = "", ...rest] = path.split("/");
  return { view: view in VIEWS ? view : "live", rest: rest.map(decodeURIComponent), query: new URLSearchParams(query) };
}

async function show({ focus = false } = {}) {
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  const { view, rest, query } = place();
  const near = view === "decision" ? "history" : view;
  for (const link of nav.children) {
    if (link.dataset.view === near) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  clear();
  document.title = `${title(view)} · Blemish`;
  main.replaceChildren();
  main.dataset.view = view;
  if (focus) main.focus();
  try {
    await VIEWS[view].show(main, { rest, query, signal, on: (kind, action) => events.addEventListener(kind, action, { signal }) });
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function title(view) {
  const titles = {
    live: t("nav.live"), history: t("nav.history"), scores: t("nav.scores"), "what-if": t("nav.what_if"),
    upload: t("nav.upload"), line: t("nav.line"), models: t("nav.models"), decision: t("nav.decision"),
  };
  return titles[view];
}

// -- frame ---------------------------------------------------------------------------------------------

function frame() {
  replace(nav, SHOWN.map((view) => h("a", { href: `#/${view}`, "data-view": view }, title(view))));
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  showTheme();
  connection(connected);
}

let connected = false;
function connection(isOn) {
  connected = isOn;
  const element = document.getElementById("connection");
  element.dataset.state = isOn ? "on" : "off";
  element.textContent = isOn ? t("page.connected") : t("page.disconnected");
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
function showTheme() {
  const chosen = remembered("theme") ?? "system";
  const theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = theme;
  const names = { system: t("theme.system"), light: t("theme.light"), dark: t("theme.dark") };
  const button = document.getElementById("theme");
  button.textContent = { system: "◐", light: "☀", dark: "☾" }[chosen];
  button.setAttribute("aria-label", t("theme.label", { theme: names[chosen] }));
  button.title = t("theme.label", { theme: names[chosen] });
}
dark.addEventListener("change", showTheme);
document.getElementById("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  remember("theme", order[(order.indexOf(remembered("theme") ?? "system") + 1) % order.length]);
  showTheme();
});

// -- keys ----------------------------------------------------------------------------------------------

const help = document.getElementById("help");
function showHelp() {
  const keys = [
    ["?", t("keys.help")], [t("keys.digits"), t("keys.views")], ["R / W", t("keys.verdict")], ["B / P", t("keys.draw")],
    ["← / →", t("keys.neighbour")], ["+ / − / 0", t("keys.zoom")], ["M", t("keys.map")], ["H", t("keys.hold")], [t("keys.arrows"), t("keys.cross")],
    [t("keys.space"), t("keys.corner")], [t("keys.enter"), t("keys.finish")], ["Esc", t("keys.cancel")],
  ];
  replace(help, h("h2", {}, t("page.keys")),
    h("table", { class: "keys-table" }, h("tbody", {}, keys.map(([key, meaning]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, meaning))))),
    h("form", { method: "dialog" }, h("button", {}, t("page.close"))));
  help.showModal();
}
document.getElementById("keys").addEventListener("click", showHelp);
document.addEventListener("keydown", (event) => {
  if (isTyping(event)) return;
  const number = Number(event.key);
  if (event.key === "?") showHelp();
  else if (number >= 1 && number <= SHOWN.length) location.hash = `#/${SHOWN[number - 1]}`;
});

// -- the key of the server -----------------------------------------------------------------------------

let asking = false;
function askForKey() {
  if (asking) return;
  asking = true;
  const box = h("input", { type: "password", autocomplete: "current-password", required: true, name: "key" });
  const wrong = h("p", { class: "message bad", role: "alert", hidden: true });
  const dialog = h("dialog", { "aria-labelledby": "login-title" },
    h("h2", { id: "login-title" }, t("login.title")), h("p", { class: "note" }, t("login.note")),
    h("form", {
      class: "stack tight", onsubmit: async (event) => {
        event.preventDefault();
        try {
          await post("api/login", { key: box.value });
          dialog.close();
          dialog.remove();
          asking = false;
          listen();
          await show();
        } catch (error) {
          wrong.textContent = error.status === 401 || error.status === 403 ? t("login.wrong") : words(error);
          wrong.hidden = false;
          box.select();
        }
      },
    }, field(t("login.key"), box), wrong, h("button", { class: "main" }, t("login.enter"))));
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
}
events.addEventListener("locked", askForKey);

// -- begin ---------------------------------------------------------------------------------------------

let lost = false;
events.addEventListener("connected", () => {
  connection(true);
  // Whatever happened while the server was away is in its history.
  if (lost) show();
  lost = false;
});
events.addEventListener("disconnected", () => {
  lost ||= connected;
  connection(false);
});

async function begin() {
  const known = await languages();
  await useLanguage(preferred(known));
  const select = document.getElementById("language");
  replace(select, options(known.map((one) => [one.code, one.name]), language()));
  select.addEventListener("change", async () => {
    remember("language", select.value);
    await useLanguage(select.value);
    frame();
    await show();
  });
  frame();
  window.addEventListener("hashchange", () => show({ focus: true }));
  // The page is there for those without the key; the history is not.
  const session = await get("api/session");
  if (session.needs_key && !session.is_signed_in) {
    askForKey();
    return;
  }
  listen();
  await show();
}
begin().catch(fail);
