// Parts that several views share.

import { drawing, get, kindOf } from "./api.js";
import { h, options, sign } from "./dom.js";
import { clock, moment, score, t } from "./messages.js";

export function wordOf(kind) {
  return { accepted: t("decision.accepted"), rejected: t("decision.rejected"), other: t("decision.other") }[kind];
}

export function badge(record) {
  const kind = kindOf(record);
  return h("span", { class: `badge ${kind}` }, sign(kind), wordOf(kind));
}

export function verdictBadge(verdict) {
  if (!verdict) return null;
  return h("span", { class: `badge plain ${verdict.is_right ? "" : "warn"}` }, verdict.is_right ? t("verdict.was_right") : t("verdict.was_wrong"));
}

// The overlay of a decision, small, or words where the image is not kept.
export function picture(record, { isRecent = false, side = 240 } = {}) {
  const lack = () => h("span", {}, t("decision.not_kept_short"));
  if (!record.kept && !isRecent) return lack();
  return h("img", { src: drawing(record.id, "overlay", side), alt: "", loading: "lazy", onerror: (event) => event.target.replaceWith(lack()) });
}

// A decision, small, with its sign; a link to it. `isRecent` where the server may have the image though it is not kept.
export function thumb(record, { current = false, isRecent = false } = {}) {
  const kind = kindOf(record);
  return h("a", { class: "thumb", href: `#/decision/${record.id}`, "aria-current": current ? "true" : null, "data-id": record.id },
    h("span", { class: "image" }, picture(record, { isRecent }), h("span", { class: `corner ${kind}` }, sign(kind))),
    h("span", { class: "name", title: record.name }, h("span", { class: "visually-hidden" }, `${wordOf(kind)}: `), record.name),
    h("span", { class: "when" }, h("span", {}, isRecent ? clock(record.time) : moment(record.time)), h("span", {}, score(record.score, record.threshold))));
}

export function scale() {
  return h("p", { class: "heat-scale" }, t("viewer.low"), h("i", {}), t("viewer.high"));
}

// Names of the models that are served, the first one being used where none is named.
export async function modelNames(signal) {
  return (await get("api/models", {}, signal)).models.map((model) => model.name);
}

export function modelSelect(names, chosen, attributes = {}) {
  return h("select", { "aria-label": t("model.label"), ...attributes }, options(names.map((name) => [name, name]), chosen));
}
