// One decision: the image with its map and regions, its record, and the operator's verdict.

import { drawing, get, kindOf, recordOf } from "../api.js";
import { facts, field, h, replace } from "../dom.js";
import { decimal, duration, integer, moment, score, t } from "../messages.js";
import { guarded, isTyping, speak } from "../notices.js";
import { badge, scale, wordOf } from "../parts.js";
import { giveVerdict, operator, setOperator, verdictList } from "../verdicts.js";
import { Viewer } from "../viewer.js";

export async function show(main, { rest, query, signal }) {
  const record = recordOf(await get(`api/decisions/${encodeURIComponent(rest[0])}`, {}, signal));
  const kind = kindOf(record);
  const viewer = new Viewer({ drawn: (_, shapes) => announce(shapes) });
  const shapes = record.verdict?.shapes ?? [];

  const tool = (name, key, text) => h("button", {
    type: "button", "aria-pressed": "false", "data-tool": name,
    onclick: () => (viewer.tool === name ? viewer.cancel() : viewer.use(name)),
  }, text, h("kbd", {}, key));
  const box = tool("box", "B", t("verdict.box"));
  const polygon = tool("polygon", "P", t("verdict.polygon"));
  const clear = h("button", { type: "button", onclick: () => { viewer.shapes = []; viewer.draw(); announce([]); } }, t("verdict.clear"));
  const drawn = h("p", { class: "soft", role: "status" });
  viewer.changed = (name) => {
    for (const button of [box, polygon]) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    if (name) drawn.textContent = name === "box" ? t("verdict.draw_box") : t("verdict.draw_polygon");
    else if (!viewer.shapes.length) drawn.textContent = "";
  };
  function announce(list) {
    drawn.textContent = list.length ? t("verdict.shapes", { count: list.length }) : "";
  }

  const label = h("input", { type: "text", list: "labels", value: record.verdict?.label ?? "", maxlength: "100", placeholder: t("verdict.label_hint") });
  const note = h("textarea", { rows: "2", maxlength: "2000" });
  const who = h("input", { type: "text", value: operator(), maxlength: "100", autocomplete: "name", onchange: (event) => setOperator(event.target.value.trim()) });
  const list = h("div", {});
  const right = h("button", { type: "button", class: "good", onclick: guarded(() => judge(true)) }, t("verdict.right"), h("kbd", {}, "R"));
  const wrong = h("button", { type: "button", class: "bad", onclick: guarded(() => judge(false)) }, t("verdict.wrong"), h("kbd", {}, "W"));
  const done = h("p", { class: "message good", role: "status", hidden: true });

  async function judge(isRight) {
    setOperator(who.value.trim());
    await giveVerdict(record.id, { is_right: isRight, label: label.value.trim() || null, shapes: viewer.shapes, note: note.value.trim() });
    note.value = "";
    const text = isRight ? t("verdict.stored_right", { name: record.name }) : t("verdict.stored_wrong", { name: record.name });
    done.textContent = text;
    done.hidden = false;
    speak(text);
    await verdicts();
  }
  async function verdicts() {
    const answer = await get(`api/decisions/${record.id}/verdicts`, {}, signal);
    verdictList(list, answer.verdicts ?? answer);
  }

  const neighbours = { older: null, newer: null };
  const link = (direction, text) => h("a", { class: "button", "data-direction": direction, hidden: true }, text);
  const newer = link("newer", t("decision.newer"));
  const older = link("older", t("decision.older"));

  main.append(
    h("div", { class: "page-head" }, h("h1", { class: "wrap" }, record.name), badge(record), h("span", { class: "spacer" }), newer, older),
    h("div", { class: "split" },
      h("div", { class: "stack" }, viewer.element, record.kept ? scale() : null,
        h("section", { class: "card" }, h("h2", {}, t("decision.record")), facts([
          [t("decision.number"), integer(record.id)], [t("decision.time"), moment(record.time)],
          [t("decision.score"), score(record.score, record.threshold)], [t("decision.threshold"), score(record.threshold, record.threshold)],
          [t("decision.p_value"), decimal(record.p_value)], [t("decision.other_kind"), record.other_kind],
          [t("model.label"), record.model], [t("decision.source"), record.source === "api" ? t("decision.api") : record.source],
          [t("decision.latency"), duration(record.seconds)], [t("decision.size"), `${record.size[0]} × ${record.size[1]}`],
          [t("decision.classes"), record.classes.map((one) => `${one.name}: ${score(one.score, one.threshold)} / ${score(one.threshold, one.threshold)}${one.is_above ? " ✕" : ""}`).join("; ")],
          [t("decision.image_sha256"), h("span", { class: "mono" }, record.image_sha256)],
        ]),
        record.kept ? h("p", { class: "row" },
          h("a", { href: `api/decisions/${record.id}/image`, download: "" }, t("decision.save_image")),
          h("a", { href: `api/decisions/${record.id}/map`, download: "" }, t("decision.save_map")),
          h("a", { href: `api/decisions/${record.id}/overlay`, download: "" }, t("decision.save_overlay"))) : null)),
      h("div", { class: "stack" },
        h("section", { class: "card stack tight", "aria-labelledby": "verdict-title" }, h("h2", { id: "verdict-title" }, t("verdict.title")),
          h("p", { class: "note" }, kind === "accepted" ? t("verdict.ask_accepted") : t("verdict.ask_rejected")),
          h("div", { class: "actions" }, right, wrong), done,
          h("div", { class: "row" }, box, polygon, clear), drawn,
          field(t("verdict.label"), label), h("datalist", { id: "labels" }),
          h("details", {}, h("summary", {}, t("verdict.more")), h("div", { class: "stack tight" }, field(t("verdict.operator"), who), field(t("verdict.note"), note)))),
        h("section", { class: "card" }, h("h2", {}, t("decision.regions")),
          record.regions.length ? h("ol", { class: "stack tight regions" }, record.regions.slice(0, 20).map((region, number) => h("li", {}, h("button", {
            type: "button", onclick: () => viewer.showRegion(number),
          }, h("strong", {}, integer(number + 1)), t("decision.region", {
            width: integer(region.width), height: integer(region.height), x: integer(region.x), y: integer(region.y), peak: decimal(region.peak),
          }), region.region_class ? ` · ${region.region_class}` : "")))) : h("p", { class: "soft" }, t("decision.no_regions"))),
        h("section", { class: "card" }, h("h2", {}, t("verdict.before")), list))));

  viewer.open({
    size: record.size, regions: record.regions, shapes,
    image: drawing(record.id, "image", 2048), heat: drawing(record.id, "heat", 2048), nothing: t("decision.not_kept"),
    label: t("viewer.label", { name: record.name, decision: wordOf(kind), regions: integer(record.regions.length) }),
  });
  viewer.image.addEventListener("error", () => [box, polygon, clear].forEach((button) => { button.disabled = true; }));
  if (query.get("region")) viewer.showRegion(Number(query.get("region")));

  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const actions = {
      r: () => right.click(), w: () => wrong.click(), m: () => viewer.toggleMap(),
      b: () => !box.disabled && box.click(), p: () => !polygon.disabled && polygon.click(), Escape: () => viewer.cancel(),
      ArrowLeft: () => neighbours.newer && newer.click(), ArrowRight: () => neighbours.older && older.click(),
    };
    if (key in actions && !(event.key.startsWith("Arrow") && viewer.tool)) {
      actions[key]();
      event.preventDefault();
    }
  }, { signal });

  await verdicts();
  // Numbers rise in the order of storage, and only the oldest are ever removed.
  const [before, after, seen] = await Promise.all([
    get("api/decisions", { before: record.id, limit: 1 }, signal), get("api/decisions", { before: record.id + 2, limit: 1 }, signal),
    get("api/labels", {}, signal),
  ]);
  for (const [name, element, answer] of [["older", older, before], ["newer", newer, after]]) {
    const found = answer.decisions.map(recordOf)[0];
    if (!found || found.id === record.id) continue;
    neighbours[name] = found.id;
    element.href = `#/decision/${found.id}`;
    element.hidden = false;
  }
  replace(main.querySelector("#labels"), ["good", ...seen.labels.filter((one) => one !== "good")].map((value) => h("option", { value })));
}
