// Live: the newest decision, large enough to be read from three metres, with counts and the ones before it.

import { drawing, get, kindOf, recordOf } from "../api.js";
import { h, replace, sign, tiles } from "../dom.js";
import { clock, decimal, duration, integer, percent, remember, remembered, score, t } from "../messages.js";
import { guarded, isTyping, speak } from "../notices.js";
import { thumb, wordOf } from "../parts.js";
import { giveVerdict } from "../verdicts.js";
import { Viewer } from "../viewer.js";

const STRIP = 12;

// The style sheet sets the word as large as its letters let it be.
function sized(word) {
  word.style.setProperty("--letters", String(Math.max(7, word.textContent.length)));
  return word;
}

export async function show(main, { signal, on }) {
  const viewer = new Viewer({ label: t("viewer.none") });
  const signBox = h("section", { class: "sign", "aria-label": t("live.last") });
  const counts = h("div", {});
  const strip = h("div", { class: "strip" });
  const held = h("button", { type: "button", "aria-pressed": "false", onclick: () => hold(!isHeld) }, t("live.hold"));
  const large = h("button", { type: "button", onclick: () => enlarge(remembered("live") !== "large") });
  const right = h("button", { type: "button", class: "good", onclick: guarded(() => judge(true)) }, t("verdict.right"), h("kbd", {}, "R"));
  const wrong = h("button", { type: "button", class: "bad", onclick: guarded(() => judge(false)) }, t("verdict.wrong"), h("kbd", {}, "W"));
  const more = h("a", { class: "button" }, t("live.details"));
  const notice = h("p", { class: "message warn", hidden: true });
  const verdict = h("span", { class: "soft", role: "status" });
  const grid = h("div", { class: "live" },
    h("div", { class: "left" }, h("div", { class: "sign-place" }, signBox), counts), viewer.element);
  main.append(
    h("h1", { class: "visually-hidden" }, t("nav.live")), notice, h("div", { class: "stack" }, grid,
      h("div", { class: "row" }, right, wrong, more, verdict, h("span", { class: "spacer" }), held, large),
      h("section", { class: "card" }, h("h2", {}, t("live.before")), strip)));

  let records = [];
  let isHeld = false;
  let shown = null;

  function enlarge(isLarge) {
    remember("live", isLarge ? "large" : "both");
    grid.classList.toggle("large", isLarge);
    viewer.element.hidden = isLarge;
    large.textContent = isLarge ? t("live.with_image") : t("live.only_sign");
    if (!isLarge) viewer.reset();
  }

  function hold(value) {
    isHeld = value;
    held.setAttribute("aria-pressed", String(isHeld));
    held.textContent = isHeld ? t("live.go_on") : t("live.hold");
    if (!isHeld && records.length) present(records[0]);
  }

  function present(record) {
    shown = record;
    const kind = kindOf(record);
    const most = Math.max(2 * record.threshold, record.score * 1.05) || 1;
    const fill = h("span", { class: "fill" });
    const limit = h("span", { class: "limit" });
    fill.style.width = `${Math.min(100, (100 * Math.max(0, record.score)) / most)}%`;
    limit.style.left = `${Math.min(100, Math.max(0, (100 * record.threshold) / most))}%`;
    signBox.className = `sign ${kind}`;
    const word = wordOf(kind);
    replace(signBox,
      sized(h("p", { class: "word", id: "last-decision" }, sign(kind), word)),
      h("p", { class: "about" }, h("strong", { class: "wrap" }, record.name),
        h("span", {}, t("live.score", { score: score(record.score, record.threshold), threshold: score(record.threshold, record.threshold) })),
        h("span", {}, clock(record.time))),
      record.other_kind ? h("p", { class: "about" }, record.other_kind) : null,
      h("div", { class: "gauge", "aria-hidden": "true" }, fill, limit));
    viewer.open({
      size: record.size, regions: record.regions,
      image: drawing(record.id, "image", 1600), heat: drawing(record.id, "heat", 1600), nothing: t("decision.not_kept"),
      label: t("viewer.label", { name: record.name, decision: word, regions: integer(record.regions.length) }),
    });
    more.href = `#/decision/${record.id}`;
    for (const button of [right, wrong]) button.disabled = false;
    verdict.textContent = record.verdict ? record.verdict.is_right ? t("verdict.was_right") : t("verdict.was_wrong") : "";
    draw();
  }

  function draw() {
    replace(strip, records.slice(0, STRIP).map((record) => thumb(record, { current: record.id === shown?.id, isRecent: true })));
  }

  async function judge(isRight) {
    if (!shown) return;
    const { id, name } = shown;
    await giveVerdict(id, { is_right: isRight });
    const text = isRight ? t("verdict.stored_right", { name }) : t("verdict.stored_wrong", { name });
    speak(text);
    verdict.textContent = text;
  }

  const count = guarded(async () => {
    const found = await get("api/summary", { since: new Date(new Date().setHours(0, 0, 0, 0)).toISOString() }, signal);
    replace(counts, tiles([
      [t("live.accepted"), integer(found.accepted)], [t("live.rejected"), integer(found.rejected), found.count ? percent(found.rejected / found.count) : ""],
      [t("live.rate"), found.per_minute === null ? "–" : decimal(found.per_minute, 3), t("live.per_minute")],
      [t("live.latency"), found.seconds === null ? "–" : duration(found.seconds)],
    ]));
    const drifting = (found.drift ?? []).filter((one) => one.is_drifting);
    notice.hidden = drifting.length === 0;
    replace(notice, drifting.map((one) => h("span", {}, t("drift.alarm", { model: one.model }), " ", h("a", { href: `#/scores?model=${encodeURIComponent(one.model)}` }, t("drift.look")))));
  });

  let counting = 0;
  on("decision", ({ detail }) => {
    const record = recordOf(detail);
    records = [record, ...records.filter((one) => one.id !== record.id)].sort((a, b) => b.id - a.id).slice(0, 50);
    if (!isHeld) {
      present(records[0]);
      speak(`${wordOf(kindOf(record))}: ${record.name}`);
    } else {
      draw();
    }
    // Counts follow within a second, however fast the line is.
    counting ||= setTimeout(() => { counting = 0; count(); }, 1000);
  });
  on("drift", () => count());
  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const key = event.key.toLowerCase();
    if (key === "r" && !right.disabled) right.click();
    else if (key === "w" && !wrong.disabled) wrong.click();
    else if (key === "h") hold(!isHeld);
    else if (key === "m") viewer.toggleMap();
  }, { signal });
  signal.addEventListener("abort", () => clearTimeout(counting));

  enlarge(remembered("live") === "large");
  for (const button of [right, wrong]) button.disabled = true;
  replace(signBox, sized(h("p", { class: "word" }, t("live.waiting"))), h("p", { class: "about" }, t("live.waiting_note")));
  viewer.open({ size: [4, 3], image: null, nothing: t("live.no_image") });
  count();
  records = (await get("api/decisions", { limit: 50 }, signal)).decisions.map(recordOf);
  if (records.length) present(records[0]);
  else replace(strip, h("p", { class: "soft" }, t("history.none")));
}
