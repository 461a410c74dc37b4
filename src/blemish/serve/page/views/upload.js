// Upload: images dropped on the page are inspected one after the other, a few at a time.

import { ApiError, kindOf, upload } from "../api.js";
import { field, h, replace, s } from "../dom.js";
import { duration, score, t, tn } from "../messages.js";
import { speak, words } from "../notices.js";
import { badge, modelNames, modelSelect, picture, wordOf } from "../parts.js";

const AT_ONCE = 3;
const TRIES = 5;

export function dropZone(title, hint, take) {
  const input = h("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff", class: "visually-hidden", tabindex: "-1", "aria-hidden": "true", onchange: () => { take([...input.files]); input.value = ""; } });
  const zone = h("div", { class: "drop" },
    s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: "M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3M12 16V4m0 0L7 9m5-5l5 5", fill: "none", stroke: "currentColor", "stroke-width": 1.8, "stroke-linecap": "round", "stroke-linejoin": "round" })),
    h("p", {}, h("strong", {}, title)), h("p", { class: "note" }, hint),
    h("button", { type: "button", class: "main", onclick: () => input.click() }, t("upload.choose")), input);
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
  return zone;
}

// Runs `work` on each of the items, a few at one time.
export async function each(items, work, atOnce = AT_ONCE) {
  const left = [...items];
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (left.length) await work(left.shift());
  }));
}

// Sends again what a busy server refused, as long as it says that a place will be free.
async function patiently(action, signal) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 503 || tried === TRIES || signal.aborted) throw error;
      await new Promise((done) => setTimeout(done, 1000 * tried));
    }
  }
}

export async function show(main, { signal }) {
  const names = await modelNames(signal);
  const select = modelSelect(names, names[0]);
  const results = h("div", { class: "results" });
  const summary = h("p", { class: "soft", role: "status" });
  const bar = h("progress", { max: "1", value: 0, hidden: true, "aria-label": t("upload.progress") });
  let [total, done, rejected, failed] = [0, 0, 0, 0];

  main.append(
    h("div", { class: "page-head" }, h("h1", {}, t("nav.upload")), h("span", { class: "spacer" }), names.length > 1 ? field(t("model.label"), select) : null),
    h("div", { class: "stack" }, dropZone(t("upload.drop"), t("upload.hint"), take), bar, summary, results));

  async function take(files) {
    total += files.length;
    tell();
    await each(files, async (file) => {
      if (signal.aborted) return;
      const row = h("div", { class: "result" }, h("span", { class: "image" }, "…"), h("div", {}, h("p", { class: "wrap" }, file.name), h("p", { class: "soft" }, t("upload.working"))));
      results.prepend(row);
      const form = new FormData();
      form.append("images", file, file.name);
      try {
        const [found] = (await patiently(() => upload("api/inspect", form, { model: select.value }), signal)).results;
        if (found.error) throw new ApiError(found.status, found.error, found);
        const { record } = found;
        rejected += record.is_anomalous ? 1 : 0;
        row.replaceWith(h("a", { class: "result", href: `#/decision/${record.id}` }, h("span", { class: "image" }, picture(record, { isRecent: true })),
          h("div", { class: "stack tight" }, h("p", { class: "wrap" }, h("strong", {}, record.name)), h("p", {}, badge(record)),
            h("p", { class: "soft" }, `${t("live.score", { score: score(record.score, record.threshold), threshold: score(record.threshold, record.threshold) })} · ${duration(record.seconds)}`),
            record.other_kind ? h("p", { class: "soft" }, record.other_kind) : null)));
        if (total === 1) speak(`${wordOf(kindOf(record))}: ${record.name}`);
      } catch (error) {
        failed += 1;
        row.replaceChildren(h("span", { class: "image" }, "—"), h("div", { class: "stack tight" }, h("p", { class: "wrap" }, h("strong", {}, file.name)), h("p", { class: "message bad", role: "alert" }, words(error))));
      }
      done += 1;
      tell();
    });
    if (done === total && total > 1) speak(summary.textContent);
  }

  function tell() {
    bar.hidden = done === total;
    bar.max = total || 1;
    bar.value = done;
    replace(summary, total ? [tn("upload.done", done, { total }), " · ", tn("upload.rejected", rejected), failed ? ` · ${tn("upload.failed", failed)}` : ""] : "");
  }
}
