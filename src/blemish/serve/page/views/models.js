// Models: versions, promotion and roll-back, and fits from good images.

import { get, post, remove, upload } from "../api.js";
import { facts, field, h, options, replace, tiles } from "../dom.js";
import { decimal, duration, explained, integer, moment, percent, t, tn, translated } from "../messages.js";
import { fail, guarded, speak, words } from "../notices.js";
import { modelSelect, thumb } from "../parts.js";
import { dropZone, each } from "./upload.js";

export async function show(main, context) {
  const { query, signal, on } = context;
  const { models } = await get("api/models", {}, signal);
  const name = query.get("model") ?? models[0].name;
  const state = { name, model: models.find((model) => model.name === name) ?? models[0], fits: [] };
  const about = h("section", { class: "card" });
  const versions = h("section", { class: "card", "aria-labelledby": "versions-title" });
  const comparison = h("div", {});
  const good = h("section", { class: "card stack" });
  const fits = h("section", { class: "card", "aria-labelledby": "fits-title" });
  main.append(
    h("div", { class: "page-head" }, h("h1", {}, t("nav.models")), h("span", { class: "spacer" }),
      models.length > 1 ? field(t("model.label"), modelSelect(models.map((one) => one.name), name, { onchange: (event) => { location.hash = `#/models?${new URLSearchParams({ model: event.target.value })}`; } })) : null),
    h("div", { class: "stack" }, h("div", { class: "halves" }, about, versions), comparison, h("div", { class: "halves" }, good, fits)));

  const load = guarded(async () => {
    state.model = await get(`api/models/${encodeURIComponent(name)}`, {}, signal);
    const found = await get(`api/models/${encodeURIComponent(name)}/versions`, {}, signal);
    showModel(about, state.model);
    showVersions(versions, found);
  });

  function showModel(element, model) {
    replace(element, h("h2", {}, model.name), model.problem ? h("p", { class: "message bad" }, translated(model.problem)) : null,
      facts([
        [t("model.recipe"), model.recipe], [t("model.runtime"), model.runtime], [t("scores.threshold"), `${decimal(model.threshold, 5)}${model.is_chosen ? ` (${t("model.chosen")})` : ""}`],
        [t("scores.promise"), model.false_reject_rate === null ? t("scores.no_promise") : t("model.promise", { rate: percent(model.false_reject_rate), count: integer(model.calibration_images) })],
        [t("model.weights"), h("span", { class: "mono" }, model.model_sha256.slice(0, 16))],
      ]),
      h("details", {}, h("summary", {}, t("model.card")), h("pre", { class: "log" }, model.card)));
  }

  function showVersions(element, { versions: list, running, before }) {
    const rows = [...list].reverse().map((version) => h("tr", { "data-version": version.number },
      h("td", {}, h("strong", {}, t("model.version", { number: version.number })), " ", version.number === running ? h("span", { class: "badge accepted plain" }, t("model.runs")) : null),
      h("td", {}, h("span", { class: "soft" }, `${version.origin === "command line" ? t("model.from_command") : version.origin} · ${moment(version.added)}`)),
      h("td", { class: "n" }, h("div", { class: "row" }, version.number === running ? null : [
        h("button", { type: "button", onclick: guarded(() => compare(version.number)) }, t("model.compare")),
        h("button", { type: "button", class: "main", onclick: guarded(() => promote(version.number)) }, t("model.promote"))]))));
    replace(element, h("div", { class: "page-head" }, h("h2", { id: "versions-title" }, t("model.versions")), h("span", { class: "spacer" }),
      h("button", { type: "button", disabled: !before.length, onclick: guarded(rollBack) }, before.length ? t("model.roll_back", { number: before.at(-1) }) : t("model.no_roll_back"))),
    h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows))));
  }

  async function promote(number) {
    await post(`api/models/${encodeURIComponent(name)}/promote`, { version: number });
    speak(t("model.promoted", { number }));
    await load();
  }
  async function rollBack() {
    const { running } = await post(`api/models/${encodeURIComponent(name)}/roll-back`);
    speak(t("model.promoted", { number: running }));
    await load();
  }

  // -- comparison with the running model on the history --------------------------------------------------

  async function compare(number) {
    await post(`api/models/${encodeURIComponent(name)}/compare`, { version: number });
    await followComparison();
  }
  async function followComparison() {
    while (!signal.aborted) {
      const found = await get(`api/models/${encodeURIComponent(name)}/comparison`, {}, signal);
      showComparison(found);
      if (!found || found.state !== "running") return;
      await new Promise((done) => setTimeout(done, 500));
    }
  }
  function showComparison(found) {
    if (!found) { replace(comparison); return; }
    const head = h("h2", {}, t("compare.title", { candidate: found.candidate, running: found.running }));
    if (found.state === "running") {
      replace(comparison, h("section", { class: "card stack tight" }, head, h("progress", { max: String(found.total || 1), value: found.done, "aria-label": t("compare.title", { candidate: found.candidate, running: found.running }) }),
        h("p", { class: "soft" }, t("compare.progress", { done: found.done, total: found.total }))));
      return;
    }
    const { result } = found;
    if (!result || !result.compared) {
      replace(comparison, h("section", { class: "card stack tight" }, head, h("p", { class: "message warn" }, found.error ? translated(found.error) : t("compare.none"))));
      return;
    }
    const share = (count) => percent(count / result.compared);
    const agree = (side) => (result.judged ? t("compare.agreement", { right: integer(side.agreeing), judged: integer(result.judged) }) : "–");
    replace(comparison, h("section", { class: "card stack" }, head,
      tiles([[t("compare.images"), integer(result.compared)], [t("compare.newly_rejected"), integer(result.newly_rejected)], [t("compare.newly_accepted"), integer(result.newly_accepted)]]),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["", t("compare.rejected"), t("compare.verdicts"), t("live.latency")].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, [[t("compare.running", { number: found.running }), result.running], [t("compare.candidate", { number: found.candidate }), result.candidate]].map(([text, side]) => h("tr", {},
          h("th", { scope: "row" }, text), h("td", {}, `${integer(side.rejected)} (${share(side.rejected)})`), h("td", {}, agree(side)), h("td", {}, duration(side.seconds))))))),
      result.changed.length ? h("div", {}, h("h3", {}, tn("what_if.changed", result.newly_rejected + result.newly_accepted)), h("div", { class: "grid" }, result.changed.map((one) => thumb(one.decision)))) : h("p", { class: "soft" }, t("what_if.none_changed")),
      result.skipped ? h("p", { class: "note" }, tn("compare.skipped", result.skipped)) : null,
      h("p", { class: "note" }, t("compare.note")),
      h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: guarded(() => promote(found.candidate)) }, t("model.promote_number", { number: found.candidate })))));
  }

  // -- good images ---------------------------------------------------------------------------------------

  const loadGood = guarded(async () => {
    const found = await get("api/good-images", { model: name }, signal);
    const status = h("p", { class: "soft", role: "status" }, tn("good.count", found.count));
    const warning = h("ul", { class: "stack tight" });
    const take = async (files) => {
      let done = 0;
      await each(files, async (file) => {
        const form = new FormData();
        form.append("images", file, file.name);
        try {
          const [result] = (await upload("api/good-images", form, { model: name })).results;
          if (result.error) warning.append(h("li", { class: "message bad" }, explained(result)));
        } catch (error) {
          warning.append(h("li", { class: "message bad" }, `${file.name}: ${words(error)}`));
        }
        done += 1;
        status.textContent = t("good.uploading", { done, total: files.length });
      });
      const problems = [...warning.children];
      await loadGood();
      good.querySelector("ul")?.append(...problems);
    };
    const count = h("input", { type: "number", min: "1", max: "5000", value: "100", "aria-label": t("good.collect_count") });
    const kind = h("select", { "aria-label": t("good.collect_from") }, options([["confirmed", t("good.confirmed")], ["accepted", t("good.accepted")]], "confirmed"));
    const collected = h("p", { class: "soft", role: "status" });
    replace(good, h("h2", {}, t("good.title")), h("p", { class: "note" }, t("good.note")), status, dropZone(t("good.drop"), t("good.hint"), take), warning,
      h("div", { class: "form" }, field(t("good.collect_from"), kind), field(t("good.collect_count"), count), h("button", {
        type: "button", onclick: guarded(async () => {
          const answer = await post("api/good-images/collect", { model: name, kind: kind.value, count: Number(count.value) });
          await loadGood();
          good.querySelector("[data-collected]").textContent = tn("good.collected", answer.added, { known: integer(answer.known), tests: integer(answer.to_test) });
        }),
      }, t("good.collect"))), Object.assign(collected, { textContent: "" }),
      found.count ? h("button", {
        type: "button", class: "danger", onclick: guarded(async () => {
          if (!window.confirm(t("good.remove_ask", { count: integer(found.count) }))) return;
          await remove(`api/good-images?model=${encodeURIComponent(name)}`);
          await loadGood();
        }),
      }, t("good.remove")) : null);
    collected.dataset.collected = "";
    state.good = found.count;
    showFits();
  });

  // -- fits ----------------------------------------------------------------------------------------------

  const budget = h("select", {}, options([["1m", "1 min"], ["5m", "5 min"], ["15m", "15 min"], ["1h", "1 h"], ["", t("fit.by_settings")]], "5m"));
  const rate = h("select", {}, options([["0.01", percent(0.01)], ["0.02", percent(0.02)], ["0.05", percent(0.05)], ["0.1", percent(0.1)], ["0.2", percent(0.2)]], "0.05"));
  const warm = h("input", { type: "checkbox" });
  const useDefects = h("input", { type: "checkbox" });
  const recipe = h("select", {});
  const settings = h("textarea", { class: "mono", rows: "3", spellcheck: "false", placeholder: "image.size=512" });
  const further = h("details", {}, h("summary", {}, t("fit.further")), h("div", { class: "stack tight" }, field(t("model.recipe"), recipe), field(t("fit.settings"), settings)));
  const start = guarded(async () => {
    await post("api/fits", { model: name, budget: budget.value || null, false_reject_rate: Number(rate.value), warm_start: warm.checked, use_defects: useDefects.checked, recipe: recipe.value || null, settings: settings.value.split("\n").map((line) => line.trim()).filter(Boolean) });
    await loadFits();
  });
  const loadFits = guarded(async () => {
    const found = await get("api/fits", {}, signal);
    state.fits = found.fits;
    state.available = found.available;
    state.defects = await get("api/defects", { model: name }, signal);
    if (!recipe.options.length) replace(recipe, options([["", t("fit.default_recipe")], ...found.recipes.map((one) => [one, one])], ""));
    showFits();
  });
  function showFits() {
    const isBusy = state.fits.some((fit) => fit.state === "running");
    const { to_choose: toChoose, drawn, to_test: toTest, least } = state.defects ?? { to_choose: 0, drawn: 0, to_test: 0, least: 0 };
    useDefects.disabled = !state.defects || toChoose < least;
    if (useDefects.disabled) useDefects.checked = false;
    const head = [h("h2", { id: "fits-title" }, t("fit.title")), h("p", { class: "note" }, t("fit.note"))];
    if (state.available && !state.available.is_available) head.push(h("p", { class: "message warn" }, t("fit.no_torch"), " ", h("span", { class: "mono" }, state.available.remedy)));
    replace(fits, h("div", { class: "stack" }, head,
      h("div", { class: "form" }, field(t("fit.budget"), budget), field(t("fit.rate"), rate), h("label", { class: "check" }, warm, t("fit.warm")), h("button", {
        type: "button", class: "main", id: "start-fit", disabled: isBusy || !state.good || !state.available?.is_available, onclick: start,
      }, t("fit.start"))),
      h("div", { class: "stack tight" }, h("label", { class: "check" }, useDefects, t("fit.use_defects")),
        h("p", { class: "note", id: "defects-note" }, tn("fit.defects", toChoose, { drawn: integer(drawn), tests: integer(toTest), least: integer(least) }))),
      further, h("div", {}, state.fits.length ? state.fits.map(showFit) : h("p", { class: "soft" }, t("fit.none")))));
  }
  function showFit(fit) {
    const names = {
      running: t("fit.running"), finished: t("fit.finished"), failed: t("fit.failed"), stopped: t("fit.stopped"), interrupted: t("fit.interrupted"),
    };
    const known = fit.progress.total ? fit.progress.done / fit.progress.total : null;
    return h("article", { class: "part", "data-fit": fit.id, "data-state": fit.state },
      h("div", { class: "about stack tight" },
        h("p", {}, h("strong", {}, t("fit.name", { number: fit.id })), " ", h("span", { class: `badge plain ${{ finished: "accepted", failed: "rejected", running: "", stopped: "warn", interrupted: "warn" }[fit.state]}` }, names[fit.state])),
        h("p", { class: "soft" }, t("fit.facts", { model: fit.request.model, images: integer(fit.images), budget: fit.request.budget ?? "–", time: moment(fit.begun) }), fit.defects ? ` · ${tn("fit.chosen_by", fit.defects)}` : ""),
        fit.state === "running" ? [h("p", { role: "status" }, fit.progress.stage || t("fit.begins")), h("progress", known === null ? { "aria-label": t("fit.running") } : { max: "1", value: known, "aria-label": t("fit.running") }), fit.progress.line ? h("p", { class: "soft wrap" }, fit.progress.line) : null] : null,
        fit.progress.error ? h("p", { class: "message bad" }, translated(fit.progress.error)) : null,
        fit.progress.problems.length ? h("details", {}, h("summary", {}, tn("fit.skipped", fit.progress.problems.length)), h("pre", { class: "log" }, fit.progress.problems.join("\n"))) : null,
        fit.version ? h("p", { class: "message good" }, t("fit.version", { model: fit.request.model, number: fit.version })) : null),
      fit.state === "running" ? h("button", { type: "button", onclick: guarded(async () => { await remove(`api/fits/${fit.id}`); await loadFits(); }) }, t("fit.stop")) : null,
      fit.can_resume ? h("button", { type: "button", onclick: guarded(async () => { await post(`api/fits/${fit.id}/resume`); await loadFits(); }) }, t("fit.resume")) : null,
      fit.version && fit.request.model === name ? h("button", { type: "button", onclick: guarded(() => compare(fit.version)) }, t("model.compare")) : null);
  }

  on("fit", ({ detail }) => {
    const place = state.fits.findIndex((fit) => fit.id === detail.id);
    if (place < 0) state.fits.unshift(detail);
    else state.fits[place] = detail;
    showFits();
    if (detail.state !== "running") load();
  });
  on("model", () => load());
  await load();
  await Promise.all([loadGood(), loadFits(), followComparison().catch(fail)]);
}
