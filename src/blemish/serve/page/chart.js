// Charts in SVG: scores over time, and their distribution.

import { h, s } from "./dom.js";
import { decimal, moment, t } from "./messages.js";

const EDGE = { left: 58, right: 96, top: 16, bottom: 34 };

// Width and height of a chart in its own units: on a narrow screen fewer, so that its text stays as large.
function extent(tall, flat) {
  const width = Math.max(340, Math.min(960, document.getElementById("main").clientWidth - 56));
  return [width, width < 600 ? flat : tall];
}

// Round numbers over a range, some five of them.
export function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) ?? 10);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

// Heights of levels and names that would lie on each other are moved apart.
function apart(labels, distance = 14) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (let number = 1; number < sorted.length; number += 1) sorted[number].y = Math.max(sorted[number].y, sorted[number - 1].y + distance);
  return sorted;
}

// Scores in the order of storage. `series` has lists id, time, score, threshold, is_anomalous, mean; `chart` the centre
// and the control limits of the mean. `whatIf` draws a second threshold and marks the decisions that change.
export function scoreChart({ series, chart = null, drift = null, whatIf = null, chosen }) {
  const count = series.id.length;
  const [wide, tall] = extent(340, 290);
  const levels = [...series.score, ...series.threshold, whatIf].filter((value) => value !== null && Number.isFinite(value));
  const high = Math.max(...levels) * 1.06 || 1;
  const low = Math.min(0, ...levels);
  const x = (place) => EDGE.left + ((count === 1 ? 0.5 : place / (count - 1)) * (wide - EDGE.left - EDGE.right));
  const y = (value) => tall - EDGE.bottom - ((value - low) / (high - low)) * (tall - EDGE.top - EDGE.bottom);
  const right = wide - EDGE.right;
  const line = (value, name) => s("line", { class: name, x1: EDGE.left, x2: right, y1: y(value), y2: y(value) });
  const steps = (values) => values.map((value, place) => `${place ? `H${x(place).toFixed(1)}V` : `M${x(0).toFixed(1)} `}${y(value).toFixed(1)}`).join("");
  const curve = (values) => {
    let text = "";
    values.forEach((value, place) => { if (value !== null) text += `${text ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`; });
    return text;
  };
  const changes = (place) => whatIf !== null && !series.other_kind?.[place] && (series.score[place] > whatIf) !== series.is_anomalous[place];
  const points = series.score.map((value, place) => {
    const bad = series.is_anomalous[place];
    const name = `point${bad ? " rejected" : ""}${changes(place) ? " changed" : ""}`;
    const [cx, cy] = [x(place), y(value)];
    return bad ? s("path", { class: name, d: `M${cx - 4.5} ${cy + 4}h9l-4.5 -8.5Z` }) : s("circle", { class: name, cx, cy, r: count > 400 ? 2.2 : 3.2 });
  });
  const last = series.threshold.at(-1);
  const labels = [{ y: y(last), text: t("scores.threshold"), strong: true }];
  if (whatIf !== null) labels.push({ y: y(whatIf), text: t("scores.what_if"), strong: true });
  if (chart) labels.push({ y: y(chart.upper), text: t("scores.upper") }, { y: y(chart.lower), text: t("scores.lower") });
  const times = (wide < 600 ? [0, count - 1] : [0, Math.floor((count - 1) / 2), count - 1]).filter((place, number, all) => place >= 0 && all.indexOf(place) === number);
  const cursor = s("circle", { class: "cursor", r: 7, visibility: "hidden" });
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${wide} ${tall}`, role: "img", tabindex: "0", "aria-label": t("scores.chart_label") },
    ticks(low, high).map((value) => [s("line", { class: "grid-line", x1: EDGE.left, x2: right, y1: y(value), y2: y(value) }),
      s("text", { class: "end", x: EDGE.left - 8, y: y(value) + 4 }, decimal(value))]),
    times.map((place, number) => s("text", { class: number === 0 ? "" : number === times.length - 1 ? "end" : "middle", x: x(place), y: tall - 10 }, moment(series.time[place]))),
    chart ? [line(chart.upper, "limit"), line(chart.lower, "limit")] : null,
    drift !== null && drift >= 0 ? s("line", { class: "drift", x1: x(drift), x2: x(drift), y1: EDGE.top, y2: tall - EDGE.bottom }) : null,
    points, s("path", { class: "threshold", d: steps(series.threshold) }),
    series.mean ? s("path", { class: "mean", d: curve(series.mean) }) : null,
    whatIf !== null ? line(whatIf, "whatif") : null, cursor,
    apart(labels).map((label) => s("text", { class: label.strong ? "strong" : "", x: right + 8, y: label.y + 4 }, label.text)));

  let place = -1;
  function pick(next) {
    if (next < 0 || next >= count) return;
    place = next;
    cursor.setAttribute("cx", x(place));
    cursor.setAttribute("cy", y(series.score[place]));
    cursor.setAttribute("visibility", "visible");
    chosen?.(place, false);
  }
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const at = [((event.clientX - box.left) / box.width) * wide, ((event.clientY - box.top) / box.height) * tall];
    let best = -1;
    let least = Infinity;
    for (let number = 0; number < count; number += 1) {
      const distance = (x(number) - at[0]) ** 2 + 0.25 * (y(series.score[number]) - at[1]) ** 2;
      if (distance < least) [best, least] = [number, distance];
    }
    return best;
  };
  svg.addEventListener("pointermove", (event) => pick(nearest(event)));
  svg.addEventListener("click", (event) => { pick(nearest(event)); chosen?.(place, true); });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) pick(place < 0 ? count - 1 : place + move);
    else if (event.key === "Home") pick(0);
    else if (event.key === "End") pick(count - 1);
    else if (event.key === "Enter" && place >= 0) chosen?.(place, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return svg;
}

export function legend(withMean, withDrift) {
  const item = (mark, text) => h("li", {}, s("svg", { viewBox: "0 0 28 14", class: "chart", "aria-hidden": "true" }, mark), text);
  const line = (name) => s("line", { class: name, x1: 1, x2: 27, y1: 7, y2: 7 });
  return h("ul", { class: "legend" },
    item(s("circle", { class: "point", cx: 14, cy: 7, r: 4 }), t("decision.accepted")),
    item(s("path", { class: "point rejected", d: "M9 11h10l-5 -9Z" }), t("decision.rejected")),
    item(line("threshold"), t("scores.threshold")),
    withMean ? [item(line("mean"), t("scores.mean")), item(line("limit"), t("scores.limits"))] : null,
    withDrift ? item(line("drift"), t("scores.drift")) : null);
}

// Counts of scores, accepted and rejected ones by the threshold; `split` is where the colour changes.
// The ends of its axis are those of the slider above it.
export function histogram(scores, split, low, high, bins = 60) {
  const counts = new Array(bins).fill(0);
  const binOf = (value) => Math.max(0, Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins)));
  for (const value of scores) counts[binOf(value)] += 1;
  const [width, height] = extent(190, 150);
  const most = Math.max(...counts, 1);
  const edge = 9;
  const step = (width - 2 * edge) / bins;
  const x = (value) => edge + Math.max(0, Math.min(1, (value - low) / (high - low))) * bins * step;
  return s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": t("what_if.histogram") },
    counts.map((count, number) => {
      const middle = low + ((number + 0.5) / bins) * (high - low);
      const size = count ? Math.max(2, (count / most) * (height - 50)) : 0;
      return s("rect", { class: `bar${middle > split ? " rejected" : ""}`, x: edge + number * step + 1, width: step - 2, y: height - 28 - size, height: size });
    }),
    s("line", { class: "axis", x1: edge, x2: width - edge, y1: height - 28, y2: height - 28 }),
    ticks(low, high, 6).map((value, number) => s("text", { class: number ? "middle" : "", x: x(value), y: height - 9 }, decimal(value))),
    s("line", { class: "whatif", x1: x(split), x2: x(split), y1: 12, y2: height - 28 }));
}

