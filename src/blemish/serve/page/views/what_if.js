// What if: which past decisions another threshold would have changed, and how to take it.

import { get, put, recordOf } from "../api.js";
import { histogram, scoreChart } from "../chart.js";
import { debounced, field, h, options, replace } from "../dom.js";
import { decimal, integer, percent, score, t, tn } from "../messages.js";
import { guarded, speak } from "../notices.js";
import { modelNames, modelSelect, thumb } from "../parts.js";

const STEPS = 1000;

export async function show(main, { query, signal }) {
  const names = await modelNames(signal);
  const name = query.get("model") ?? names[0];
  const span = query.get("span") ?? "week";
  const go = (changes) => { location.hash = `#/what-if?${new URLSearchParams({ model: name, span, ...changes })}`; };
  const hours = { day: 24, week: 168, all: null }[span];
  const since = hours ? new Date(Date.now() - hours * 3_600_000).toISOString() : null;
  const [model, found, rates] = await Promise.all([
    get(`api/models/${encodeURIComponent(name)}`, {}, signal),
    get("api/control-chart", { model: name, since, points: 1000 }, signal),
    get(`api/models/${encodeURIComponent(name)}/rates`, {}, signal),
  ]);
  const { series } = found;
  const values = [...series.score, model.threshold];
  const low = Math.min(...values, 0);
  const high = Math.max(...values) * 1.05 || 1;
  let threshold = model.threshold;
  let rate = null;

  const slider = h("input", { type: "range", min: "0", max: String(STEPS), step: "1", id: "threshold", "aria-describedby": "what-if-result" });
  const number = h("input", { type: "number", step: "any", "aria-label": t("what_if.threshold") });
  const promises = h("div", { class: "row", role: "group", "aria-label": t("what_if.promise") });
  const result = h("div", { id: "what-if-result", role: "status" });
  const chartBox = h("div", { class: "scroll" });
  const bars = h("div", { class: "scroll" });
  const changed = h("div", { class: "below" });
  const apply = h("button", { type: "button", class: "main", onclick: guarded(take) });
  const promise = h("p", { class: "note" });
  const back = h("button", { type: "button", onclick: () => choose(model.threshold, null) }, t("what_if.back"));
  const reset = h("button", { type: "button", hidden: !model.is_chosen, onclick: guarded(forget) }, t("what_if.model_own"));
  const done = h("p", { class: "message good", role: "status", hidden: true });
  const spans = [["day", t("scores.day")], ["week", t("scores.week")], ["all", t("scores.all")]];

  main.append(
    h("div", { class: "page-head" }, h("h1", {}, t("nav.what_if")), h("span", { class: "spacer" }),
      names.length > 1 ? field(t("model.label"), modelSelect(names, name, { onchange: (event) => go({ model: event.target.value }) })) : null,
      field(t("scores.span"), h("select", { onchange: (event) => go({ span: event.target.value }) }, options(spans, span))),
      h("p", { class: "note" }, t("what_if.note"))),
    h("div", { class: "split" },
      h("div", { class: "stack" },
        h("section", { class: "card stack tight" }, h("label", { for: "threshold" }, h("strong", {}, t("what_if.threshold"))), slider, bars, chartBox)),
      h("div", { class: "stack" },
        h("section", { class: "card stack tight" }, h("div", { class: "row" }, field(t("what_if.threshold"), number), back),
          h("h3", {}, t("what_if.promise")), promises, result, h("div", { class: "row" }, apply, reset), done,
          promise))), changed);

  replace(promises, rates.rates.map((one) => h("button", {
    type: "button", "aria-pressed": "false", "data-rate": one.rate, disabled: one.threshold === null,
    title: one.threshold === null ? t("what_if.too_few", { needed: one.needed, count: model.calibration_images }) : "",
    onclick: () => choose(one.threshold, one.rate),
  }, percent(one.rate, 1))));

  function choose(value, asRate, from = null) {
    threshold = value;
    rate = asRate;
    if (from !== slider) slider.value = String(Math.round(((value - low) / (high - low)) * STEPS));
    slider.setAttribute("aria-valuetext", score(value, model.threshold));
    if (from !== number) number.value = String(Number(value.toPrecision(6)));
    for (const button of promises.children) button.setAttribute("aria-pressed", String(Number(button.dataset.rate) === rate));
    promise.textContent = rate === null ? t("what_if.hand") : t("model.promise", { rate: percent(rate, 1), count: integer(model.calibration_images) });
    apply.disabled = value === model.threshold && (rate === null || rate === model.false_reject_rate);
    apply.textContent = rate === null ? t("what_if.apply", { threshold: score(value, model.threshold) }) : t("what_if.apply_rate", { rate: percent(rate, 1) });
    if (series.id.length) {
      replace(bars, histogram(series.score, value, low, high));
      replace(chartBox, scoreChart({ series: { ...series, mean: null }, whatIf: value, chosen: (place, isClick) => { if (isClick) location.hash = `#/decision/${series.id[place]}`; } }));
    } else {
      replace(chartBox, h("p", { class: "empty" }, t("scores.none")));
    }
    ask();
  }
  slider.addEventListener("input", () => choose(low + (Number(slider.value) / STEPS) * (high - low), null, slider));
  number.addEventListener("input", () => { if (Number.isFinite(number.valueAsNumber)) choose(number.valueAsNumber, null, number); });

  let asked = 0;
  const ask = debounced(guarded(async () => {
    asked += 1;
    const mine = asked;
    const answer = await get("api/what-if", { threshold, model: name, model_sha256: model.model_sha256, since, limit: 24 }, signal);
    if (mine !== asked) return;
    const accepted = answer.decisions - answer.rejected;
    const next = answer.rejected + answer.newly_rejected - answer.newly_accepted;
    replace(result,
      h("div", { class: "matrix", role: "table", "aria-label": t("what_if.matrix") },
        h("span", {}), h("span", {}, t("what_if.stay")), h("span", {}, t("what_if.change")),
        h("span", {}, t("decision.accepted")), h("span", {}, h("b", {}, integer(accepted - answer.newly_rejected))),
        h("span", { class: answer.newly_rejected ? "changed" : "" }, h("b", {}, integer(answer.newly_rejected)), " → ", t("decision.rejected")),
        h("span", {}, t("decision.rejected")), h("span", {}, h("b", {}, integer(answer.rejected - answer.newly_accepted))),
        h("span", { class: answer.newly_accepted ? "changed" : "" }, h("b", {}, integer(answer.newly_accepted)), " → ", t("decision.accepted"))),
      h("p", { class: "soft" }, answer.decisions ? t("what_if.rate", { before: percent(answer.rejected / answer.decisions), after: percent(next / answer.decisions) }) : t("scores.none")));
    const records = answer.changed.map(recordOf);
    replace(changed, h("section", { class: "card" }, h("h2", {}, tn("what_if.changed", answer.newly_rejected + answer.newly_accepted)),
      records.length ? h("div", { class: "grid" }, records.map((record) => thumb(record))) : h("p", { class: "soft" }, t("what_if.none_changed"))));
  }), 150);

  async function take() {
    await put(`api/models/${encodeURIComponent(name)}/threshold`, rate === null ? { threshold } : { false_reject_rate: rate });
    await renew(t("what_if.applied", { threshold: score(threshold, threshold) }));
  }
  async function forget() {
    await put(`api/models/${encodeURIComponent(name)}/threshold`, null);
    await renew(t("what_if.forgotten"));
  }
  async function renew(text) {
    Object.assign(model, await get(`api/models/${encodeURIComponent(name)}`, {}, signal));
    reset.hidden = !model.is_chosen;
    done.textContent = text;
    done.hidden = false;
    speak(text);
    choose(model.threshold, model.false_reject_rate);
  }
  number.placeholder = decimal(model.threshold);
  choose(model.threshold, model.false_reject_rate);
}
