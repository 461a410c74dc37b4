// Line: sources and sinks with their state, pause and resume, and the area of the image that is judged.

import { drawing, get, post, put, recordOf, remove } from "../api.js";
import { field, h, replace } from "../dom.js";
import { corners } from "../geometry.js";
import { integer, percent, t, tn, translated } from "../messages.js";
import { guarded, isTyping, speak, words } from "../notices.js";
import { modelNames, modelSelect } from "../parts.js";
import { Viewer } from "../viewer.js";

export async function show(main, { query, signal, on }) {
  const names = await modelNames(signal);
  const name = query.get("model") ?? names[0];
  const state = h("div", {});
  const sources = h("section", { class: "card", "aria-labelledby": "sources-title" });
  const sinks = h("section", { class: "card", "aria-labelledby": "sinks-title" });
  const description = h("section", { class: "card stack tight" });
  const area = h("section", { class: "stack", "aria-labelledby": "area-title" });
  main.append(h("div", { class: "page-head" }, h("h1", {}, t("nav.line")), h("span", { class: "spacer" }), state),
    h("div", { class: "stack" }, h("div", { class: "halves" }, sources, sinks), description, area));

  // -- sources and sinks -----------------------------------------------------------------------------------

  const load = guarded(async () => showLine(await get("api/line", {}, signal)));

  function showLine(line) {
    const act = (path, text, name_ = "") => h("button", {
      type: "button", class: name_, onclick: guarded(async () => { await post(`api/line/${path}`); await load(); speak(text); }),
    }, text);
    const kind = !line.sources.length ? "none" : line.is_paused ? "paused" : "running";
    const words_ = { none: t("line.stopped"), paused: t("line.paused"), running: t("line.running") }[kind];
    replace(state, h("div", { class: "row" },
      h("span", { class: `badge plain ${{ none: "", paused: "warn", running: "accepted" }[kind]}`, id: "line-state" }, words_),
      kind === "running" ? act("pause", t("line.pause")) : null, kind === "paused" ? act("resume", t("line.resume"), "main") : null,
      (line.description.sources ?? []).some((one) => one.trigger?.type === "http") ? act("trigger", t("line.trigger")) : null));
    const part = (one, about, badges) => h("div", { class: "part", "data-name": one.name },
      h("div", { class: "about" }, h("strong", {}, one.name), h("span", { class: "soft" }, ` · ${[one.type, one.model && `→ ${one.model}`].filter(Boolean).join(" ")}`), about), badges);
    const told = (one, extra = "") => [one.message, extra].filter(Boolean).map((text) => h("p", { class: one.is_ready ? "soft" : "message warn" }, translated(text)));
    replace(sources, h("h2", { id: "sources-title" }, t("line.sources")), line.sources.length ? line.sources.map((one) => part(one, told(one), [
      h("span", { class: "soft" }, tn("history.shown", one.decisions ?? 0), one.rejected ? ` · ${tn("upload.rejected", one.rejected)}` : ""),
      h("span", { class: `badge plain ${one.is_ready ? "accepted" : "warn"}` }, one.is_ready ? t("line.ready") : t("line.waits"))]))
      : h("p", { class: "soft" }, t("line.no_sources")));
    const owed = new Map(line.outbox.map((one) => [one.sink, one]));
    const gone = line.outbox.filter((one) => !line.sinks.some((sink) => sink.name === one.sink))
      .map((one) => ({ name: one.sink, type: t("line.gone"), is_ready: false, message: "" }));
    replace(sinks, h("h2", { id: "sinks-title" }, t("line.sinks")), [...line.sinks, ...gone].length ? [...line.sinks, ...gone].map((one) => {
      const { owed: count = 0, error = "" } = owed.get(one.name) ?? {};
      return part(one, told(one, error === one.message ? "" : error), [
        h("span", { class: `badge plain ${count ? "warn" : "accepted"}` }, count ? tn("line.owed", count) : t("line.delivered")),
        gone.includes(one) ? h("button", { type: "button", class: "danger", onclick: guarded(async () => { await remove(`api/line/outbox/${encodeURIComponent(one.name)}`); await load(); }) }, t("line.forget")) : null]);
    }) : h("p", { class: "soft" }, t("line.no_sinks")));
    if (!description.contains(document.activeElement)) showDescription(line.description);
  }

  function showDescription(content) {
    const box = h("textarea", { class: "code", rows: "14", spellcheck: "false", "aria-label": t("line.description") });
    box.value = JSON.stringify(content, null, 2);
    const wrong = h("p", { class: "message bad", role: "alert", hidden: true });
    const path = h("input", { type: "text", placeholder: "/data/parts", "aria-label": t("line.folder_path") });
    const add = (sort, part) => {
      try {
        const now = JSON.parse(box.value);
        const taken = (now[sort] ?? []).map((one) => one.name);
        let number = 1;
        while (taken.includes(`${part.name}${number === 1 ? "" : number}`)) number += 1;
        now[sort] = [...(now[sort] ?? []), { ...part, name: `${part.name}${number === 1 ? "" : number}` }];
        box.value = JSON.stringify(now, null, 2);
      } catch (error) {
        complain(t("line.no_json", { error: error.message }));
      }
    };
    const complain = (text) => { wrong.textContent = text; wrong.hidden = false; };
    const save = guarded(async () => {
      wrong.hidden = true;
      let wanted;
      try {
        wanted = JSON.parse(box.value);
      } catch (error) {
        complain(t("line.no_json", { error: error.message }));
        return;
      }
      try {
        const answer = await put("api/line", wanted);
        document.activeElement?.blur();
        showLine(answer);
        speak(t("line.saved"));
      } catch (error) {
        complain(words(error));
      }
    });
    replace(description, h("details", { open: (content.sources ?? []).length === 0 }, h("summary", {}, t("line.change")), h("div", { class: "stack tight" },
      h("p", { class: "note" }, t("line.change_note")),
      h("div", { class: "form" }, field(t("line.folder_path"), path), h("button", { type: "button", onclick: () => { if (path.value.trim()) add("sources", { name: "folder", type: "folder", path: path.value.trim() }); } }, t("line.add_folder")),
        h("button", { type: "button", onclick: () => add("sinks", { name: "rejects", type: "folder", path: "rejects", wants: "rejected" }) }, t("line.add_rejects"))),
      box, wrong, h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: save }, t("line.save"))))));
  }

  // -- judged area ------------------------------------------------------------------------------------------

  async function loadArea() {
    const [now, newest] = await Promise.all([get(`api/models/${encodeURIComponent(name)}/mask`, {}, signal), get("api/decisions", { model: name, limit: 1 }, signal)]);
    const record = newest.decisions.map(recordOf)[0];
    const size = now?.width ? [now.width, now.height] : record?.size ?? null;
    if (!size) {
      replace(area, h("section", { class: "card" }, h("h2", { id: "area-title" }, t("area.title")), h("p", { class: "soft" }, t("area.no_image"))));
      return;
    }
    const address_ = `api/models/${encodeURIComponent(name)}/mask`;
    let use = "ignore";
    const viewer = new Viewer({ drawn: (shape) => { shape.use = use; viewer.draw(); tell(); } });
    const told = h("p", { class: "soft", role: "status" });
    const done = h("p", { class: "message good", role: "status", hidden: true });
    const tool = (kind, wanted, text) => h("button", { type: "button", "aria-pressed": "false", "data-tool": `${wanted}-${kind}`, onclick: () => { use = wanted; viewer.use(kind); press(`${wanted}-${kind}`); } }, text);
    const tools = [tool("polygon", "judge", t("area.judge_polygon")), tool("box", "judge", t("area.judge_box")), tool("polygon", "ignore", t("area.ignore_polygon")), tool("box", "ignore", t("area.ignore_box"))];
    const press = (pressed) => { for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === pressed)); };
    viewer.changed = (kind) => { if (!kind) press(""); };
    const tell = () => {
      const judged = viewer.shapes.filter((shape) => shape.use === "judge").length;
      told.textContent = t("area.count", { judged: integer(judged), ignored: integer(viewer.shapes.length - judged) });
    };
    const save = guarded(async () => {
      const polygons = (wanted) => viewer.shapes.filter((shape) => shape.use === wanted).map(corners);
      await follow(await put(address_, { width: size[0], height: size[1], judge: polygons("judge"), ignore: polygons("ignore") }));
    });
    const clear = guarded(async () => {
      viewer.shapes = [];
      viewer.draw();
      tell();
      await follow(await remove(address_));
    });
    // The area counts at once; the calibration on good images follows.
    async function follow(first) {
      let found = first;
      while (found.state === "calibrating" && !signal.aborted) {
        show_(found);
        await new Promise((wait) => setTimeout(wait, 500));
        found = await get(address_, {}, signal);
      }
      show_(found);
      speak(done.textContent);
    }
    function show_(found) {
      const rate = found.false_reject_rate;
      const words_ = found.problem ? translated(found.problem) : (found.state === "calibrating" ? t("area.calibrating", { done: integer(found.done), total: integer(found.total) })
        : rate === null || rate === undefined ? t("area.saved") : t("area.saved_promise", { rate: percent(rate) }));
      done.className = `message ${found.problem ? "bad" : found.state === "calibrating" ? "" : "good"}`;
      done.textContent = [words_, found.share ? t("area.share", { share: percent(found.share, 0) }) : ""].join(" ");
      done.hidden = false;
    }
    replace(area, h("section", { class: "card stack tight" },
      h("div", { class: "page-head" }, h("h2", { id: "area-title" }, t("area.title")), h("span", { class: "spacer" }),
        names.length > 1 ? field(t("model.label"), modelSelect(names, name, { onchange: (event) => { location.hash = `#/line?${new URLSearchParams({ model: event.target.value })}`; } })) : null,
        h("p", { class: "note" }, t("area.note"))),
      h("div", { class: "row" }, tools, h("button", { type: "button", onclick: () => { viewer.shapes = viewer.shapes.slice(0, -1); viewer.draw(); tell(); } }, t("area.undo"))),
      viewer.element, told, done,
      h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: save }, t("area.save")), h("button", { type: "button", onclick: clear }, t("area.all")))));
    const shapes = [...(now?.judge ?? []).map((points) => ({ kind: "polygon", points, use: "judge" })), ...(now?.ignore ?? []).map((points) => ({ kind: "polygon", points, use: "ignore" }))];
    viewer.open({ size, shapes, image: record ? drawing(record.id, "image", 1600) : null, nothing: t("decision.not_kept"), label: t("area.title") });
    tell();
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !isTyping(event)) viewer.cancel(); }, { signal });
  }

  on("line", load);
  const timer = setInterval(load, 5000);
  signal.addEventListener("abort", () => clearInterval(timer));
  await Promise.all([load(), guarded(loadArea)()]);
}
