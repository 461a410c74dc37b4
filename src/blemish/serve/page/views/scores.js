// Scores: over time, with the threshold, the control chart of accepted images, and drift.

import { get } from "../api.js";
import { legend, scoreChart } from "../chart.js";
import { facts, field, h, options, replace } from "../dom.js";
import { decimal, integer, moment, percent, score, t, tn } from "../messages.js";
import { guarded } from "../notices.js";
import { modelNames, modelSelect } from "../parts.js";

export async function show(main, { query, signal, on }) {
  const names = await modelNames(signal);
  const name = query.get("model") ?? names[0];
  const span = query.get("span") ?? "day";
  const go = (changes) => { location.hash = `#/scores?${new URLSearchParams({ model: name, span, ...changes })}`; };
  const spans = [["hour", t("scores.hour")], ["day", t("scores.day")], ["week", t("scores.week")], ["all", t("scores.all")]];
  const chartBox = h("div", { class: "scroll" });
  const readout = h("p", { class: "readout", role: "status" });
  const drift = h("div", {});
  const numbers = h("div", {});
  main.append(
    h("div", { class: "page-head" }, h("h1", {}, t("nav.scores")), h("span", { class: "spacer" }),
      names.length > 1 ? field(t("model.label"), modelSelect(names, name, { onchange: (event) => go({ model: event.target.value }) })) : null,
      field(t("scores.span"), h("select", { onchange: (event) => go({ span: event.target.value }) }, options(spans, span)))),
    h("div", { class: "stack" }, drift, h("section", { class: "card stack tight" }, chartBox, readout), numbers));

  const load = guarded(async () => {
    const hours = { hour: 1, day: 24, week: 168, all: null }[span];
    const since = hours === null || hours === undefined ? null : new Date(Date.now() - hours * 3_600_000).toISOString();
    const found = await get("api/control-chart", { model: name, since, points: 1000 }, signal);
    const { series } = found;
    if (!series.id.length) {
      replace(chartBox, h("p", { class: "empty" }, t("scores.none")));
      readout.textContent = "";
    } else {
      const at = found.drift.raised_at === null ? null : series.id.findIndex((id) => id >= found.drift.raised_at);
      replace(chartBox, scoreChart({
        series, chart: found.chart, drift: at,
        chosen: (place, isClick) => {
          if (isClick) { location.hash = `#/decision/${series.id[place]}`; return; }
          replace(readout, t("scores.point", {
            number: integer(series.id[place]), time: moment(series.time[place]), score: score(series.score[place], series.threshold[place]),
            decision: series.is_anomalous[place] ? t("decision.rejected") : t("decision.accepted"),
          }));
        },
      }), legend(found.chart !== null, at !== null && at >= 0));
      if (!readout.textContent) readout.textContent = t("scores.hint");
    }
    replace(drift, found.drift.is_drifting
      ? h("p", { class: "message warn" }, t("drift.alarm", { model: name }), " ", t("drift.advice"))
      : h("p", { class: "message" }, tn("drift.none", found.drift.images)));
    const rejected = found.count ? found.rejected / found.count : null;
    replace(numbers, h("div", { class: "halves" }, h("section", { class: "card" }, h("h2", {}, t("scores.numbers")), facts([
      [t("scores.count"), integer(found.count)], [t("scores.rejected"), rejected === null ? "–" : `${integer(found.rejected)} (${percent(rejected)})`],
      [t("scores.promise"), found.promised_rate === null ? t("scores.no_promise") : percent(found.promised_rate)],
      [t("scores.threshold"), decimal(found.threshold, 5)],
    ])), h("section", { class: "card" }, h("h2", {}, t("scores.limits")), found.chart
      ? [facts([[t("scores.centre"), decimal(found.chart.centre)], [t("scores.upper"), decimal(found.chart.upper)], [t("scores.lower"), decimal(found.chart.lower)], [t("scores.beyond"), integer(found.chart.beyond)]]),
        h("p", { class: "note" }, t("scores.limits_note"))]
      : h("p", { class: "soft" }, t("scores.no_limits")))));
  });
  let waiting = 0;
  on("decision", ({ detail }) => {
    if (detail.model === name) waiting ||= setTimeout(() => { waiting = 0; load(); }, 3000);
  });
  on("drift", load);
  on("model", load);
  signal.addEventListener("abort", () => clearTimeout(waiting));
  await load();
}
