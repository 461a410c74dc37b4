// History: decisions with filters and search, page by page, and their export.

import { address, get, recordOf } from "../api.js";
import { debounced, field, h, options, replace } from "../dom.js";
import { language, t, tn } from "../messages.js";
import { guarded, speak } from "../notices.js";
import { thumb } from "../parts.js";

const LIMIT = 48;
const NAMES = ["text", "decision", "verdict", "model", "source", "since", "until"];

export async function show(main, { query, signal, on }) {
  const filter = Object.fromEntries(NAMES.map((name) => [name, query.get(name) ?? ""]));
  const before = query.get("before");
  const served = (await get("api/models", {}, signal)).models.map((model) => model.name);
  const sources = (await get("api/sources", {}, signal)).sources;

  function go(changes) {
    const next = new URLSearchParams(Object.entries({ ...filter, ...changes }).filter(([, value]) => value));
    location.hash = `#/history${next.size ? `?${next}` : ""}`;
  }
  const select = (name, choices) => h("select", { name, onchange: (event) => go({ [name]: event.target.value }) }, options(choices, filter[name]));
  const text = h("input", { type: "search", name: "text", value: filter.text, placeholder: t("history.search_hint"), maxlength: "200" });
  const find = () => { if (text.value.trim() !== filter.text) go({ text: text.value.trim() }); };
  text.addEventListener("input", debounced(find, 400));
  const day = (name) => h("input", { type: "date", name, value: filter[name], onchange: (event) => go({ [name]: event.target.value }) });
  const any = ["", t("history.any")];

  const asked = {
    ...filter, text: filter.text || null,
    since: filter.since ? new Date(`${filter.since}T00:00:00`).toISOString() : null,
    until: filter.until ? new Date(new Date(`${filter.until}T00:00:00`).getTime() + 86_400_000).toISOString() : null,
  };
  const grid = h("div", { class: "grid" });
  const pager = h("div", { class: "pager" });
  const fresh = h("button", { type: "button", hidden: true, onclick: () => load() });
  main.append(
    h("div", { class: "page-head" }, h("h1", {}, t("nav.history")), fresh, h("span", { class: "spacer" }),
      h("a", { class: "button", href: address("api/report.html", { week: filter.since || null, language: language() }) }, t("history.report")),
      h("a", { class: "button", href: address("api/history.csv", asked), download: "" }, t("history.csv")),
      h("a", { class: "button", href: address("api/history.parquet", asked), download: "" }, t("history.parquet"))),
    h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); find(); } },
      field(t("history.search"), text, { class: "field wide" }),
      field(t("history.decision"), select("decision", [any, ["rejected", t("decision.rejected")], ["accepted", t("decision.accepted")]])),
      field(t("history.verdict"), select("verdict", [any, ["none", t("history.no_verdict")], ["right", t("verdict.was_right")], ["wrong", t("verdict.was_wrong")]])),
      served.length > 1 || filter.model ? field(t("model.label"), select("model", [any, ...served.map((name) => [name, name])])) : null,
      sources.length > 1 || filter.source ? field(t("decision.source"), select("source", [any, ...sources.map((name) => [name, name === "api" ? t("decision.api") : name])])) : null,
      field(t("history.since"), day("since")), field(t("history.until"), day("until")),
      NAMES.some((name) => filter[name]) ? h("button", { type: "button", onclick: () => { location.hash = "#/history"; } }, t("history.all")) : null),
    grid, pager);

  const load = guarded(async () => {
    const answer = await get("api/decisions", { ...asked, before, limit: LIMIT }, signal);
    const records = answer.decisions.map(recordOf);
    fresh.hidden = true;
    if (!records.length) replace(grid, h("div", { class: "empty" }, t("history.none")));
    else replace(grid, records.map((record) => thumb(record)));
    grid.classList.toggle("grid", records.length > 0);
    const page = (number) => `#/history?${new URLSearchParams(Object.entries({ ...filter, before: number }).filter(([, value]) => value))}`;
    replace(pager,
      before ? h("a", { class: "button", href: page("") }, t("history.newest")) : h("span", {}),
      h("span", { class: "soft", role: "status" }, tn("history.shown", records.length)),
      answer.next ? h("a", { class: "button", href: page(answer.next) }, t("history.older")) : h("span", {}));
    speak(tn("history.shown", records.length));
  });
  let waiting = 0;
  on("decision", () => {
    if (before) return;
    waiting += 1;
    fresh.hidden = false;
    fresh.textContent = tn("history.fresh", waiting);
  });
  fresh.addEventListener("click", () => { waiting = 0; });
  await load();
  if (filter.text) text.focus();
}
