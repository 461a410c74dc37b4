// Verdicts of operators.

import { post } from "./api.js";
import { h, replace } from "./dom.js";
import { moment, remember, remembered, t } from "./messages.js";

export const operator = () => remembered("operator") ?? "";
export const setOperator = (name) => remember("operator", name);

export function giveVerdict(id, { is_right, label = null, shapes = [], note = "" }) {
  return post(`api/decisions/${id}/verdict`, { is_right, label, shapes, operator: operator(), note });
}

// All verdicts on a decision, the newest first.
export function verdictList(element, verdicts) {
  const rows = [...verdicts].reverse().map((verdict) => h("li", { class: "message" },
    h("strong", {}, verdict.is_right ? t("verdict.was_right") : t("verdict.was_wrong")),
    verdict.label ? ` · ${verdict.label}` : "", verdict.shapes.length ? ` · ${t("verdict.shapes", { count: verdict.shapes.length })}` : "",
    h("span", { class: "soft" }, ` · ${[verdict.operator, moment(verdict.time)].filter(Boolean).join(", ")}`),
    verdict.note ? h("p", {}, verdict.note) : null));
  replace(element, rows.length ? h("ul", { class: "stack tight" }, rows) : h("p", { class: "soft" }, t("verdict.none")));
}
