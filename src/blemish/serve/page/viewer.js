// An image with its anomaly map above it, its regions, and shapes that are drawn on it; moved and enlarged by pointer,
// wheel, two fingers or keys.

import { h, replace, s } from "./dom.js";
import { around, corners, fit, path, toImage, zoomed } from "./geometry.js";
import { percent, remember, remembered, t } from "./messages.js";

const GAP = 5; // pixels of the screen between a region and its box
const MOST_NUMBERS = 9; // as in the reports: more numbers would hide the image
const NEAR = 10; // pixels of the screen within which a click meets the first corner of a polygon

export class Viewer {
  // `drawn` is called with a shape {kind, points} once it is complete.
  constructor({ drawn = null, label = "" } = {}) {
    this.drawn = drawn;
    this.size = [1, 1];
    this.view = null;
    this.tool = null;
    this.points = [];
    this.cross = null;
    this.shapes = [];
    this.regions = [];
    this.picked = -1;
    this.pointers = new Map();
    this.image = h("img", { alt: "", draggable: "false" });
    this.heat = h("img", { alt: "", draggable: "false", class: "heat" });
    this.svg = s("svg", { "aria-hidden": "true" });
    this.layers = h("div", { class: "layers" }, this.image, this.heat, this.svg);
    this.nothing = h("p", { class: "nothing", hidden: true });
    this.stage = h("div", { class: "stage", tabindex: "0", role: "img", "aria-label": label }, this.layers, this.nothing);
    this.opacity = h("input", { type: "range", min: "0", max: "100", value: remembered("opacity") ?? "70", class: "opacity", "aria-label": t("viewer.opacity") });
    this.opacity.addEventListener("input", () => this.setOpacity(this.opacity.value));
    this.bar = h("div", { class: "bar" },
      this.slider = h("label", {}, t("viewer.map"), this.opacity),
      h("button", { type: "button", "aria-label": t("viewer.smaller"), title: t("viewer.smaller"), onclick: () => this.zoom(1 / 1.5) }, "−"),
      h("button", { type: "button", "aria-label": t("viewer.larger"), title: t("viewer.larger"), onclick: () => this.zoom(1.5) }, "+"),
      h("button", { type: "button", onclick: () => this.reset() }, t("viewer.fit")));
    this.element = h("div", { class: "viewer" }, this.stage, this.bar);
    this.image.addEventListener("error", () => this.lack());
    this.heat.addEventListener("error", () => { this.heat.hidden = this.slider.hidden = true; });
    this.listen();
    this.setOpacity(this.opacity.value);
    new ResizeObserver(() => (this.touched ? this.place() : this.reset())).observe(this.stage);
  }

  // `size` is that of the original image (width, height), in whose pixels regions and shapes are.
  // Where the image cannot be had, `nothing` is shown in its place.
  open({ size, image, heat = null, regions = [], shapes = [], label = "", nothing = "" }) {
    this.size = size;
    this.regions = regions;
    this.shapes = shapes;
    this.picked = -1;
    this.cancel();
    this.stage.setAttribute("aria-label", label);
    for (const [element, source] of [[this.image, image], [this.heat, heat]]) {
      element.hidden = !source;
      if (source) element.src = source;
      else element.removeAttribute("src");
    }
    this.slider.hidden = !heat;
    this.nothing.hidden = Boolean(image);
    this.nothing.textContent = nothing;
    this.reset();
  }

  lack() {
    this.image.hidden = this.heat.hidden = this.slider.hidden = true;
    this.nothing.hidden = false;
  }

  setOpacity(value) {
    this.opacity.value = value;
    this.heat.style.opacity = String(value / 100);
    this.opacity.setAttribute("aria-valuetext", percent(value / 100, 0));
    remember("opacity", String(value));
  }

  toggleMap() {
    const shown = Number(this.opacity.value) > 0;
    if (shown) this.before = this.opacity.value;
    this.setOpacity(shown ? 0 : this.before ?? 70);
  }

  // -- place on the screen -----------------------------------------------------------------------------

  get box() {
    return this.stage.getBoundingClientRect();
  }

  get least() {
    return 0.5 * fit(this.size, this.box.width, this.box.height).scale;
  }

  reset() {
    this.touched = false;
    this.view = fit(this.size, this.box.width, this.box.height);
    this.place();
  }

  zoom(factor, x = this.box.width / 2, y = this.box.height / 2) {
    this.touched = true;
    this.view = zoomed(this.view, factor, x, y, this.least);
    this.place();
  }

  move(x, y) {
    this.touched = true;
    this.view = { ...this.view, x: this.view.x + x, y: this.view.y + y };
    this.place();
  }

  showRegion(number) {
    this.picked = number;
    this.touched = true;
    this.view = around(this.regions[number], this.box.width, this.box.height, this.least);
    this.place();
  }

  place() {
    if (!this.view) return;
    const { scale, x, y } = this.view;
    const { style } = this.layers;
    style.width = `${this.size[0]}px`;
    style.height = `${this.size[1]}px`;
    // Lines on the image are as thin on the screen whatever its scale.
    style.setProperty("--px", `${1 / scale}px`);
    style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.layers.classList.toggle("pixels", scale >= 3);
    this.draw();
  }

  draw() {
    // Boxes keep their distance on the screen, so that a defect of a few pixels is not hidden by its own.
    const gap = GAP / this.view.scale;
    const outlines = this.regions.map((region, number) => {
      const at = { x: region.x - gap, y: region.y - gap, width: region.width + 2 * gap, height: region.height + 2 * gap };
      const size = 13 / this.view.scale;
      const label = number < MOST_NUMBERS && this.regions.length > 1 ? s("text", { class: "number", x: at.x, y: at.y - size / 3, "font-size": size, "stroke-width": size / 4 }, number + 1) : null;
      return [s("rect", { class: "region under", ...at }), s("rect", { class: `region${number === this.picked ? " picked" : ""}`, ...at }), label];
    }).reverse();
    const shapes = this.shapes.flatMap((shape) => {
      const d = path(corners(shape), true);
      return [s("path", { class: "defect under", d }), s("path", { class: `defect ${shape.use ?? ""}`, d })];
    });
    const open = this.points.length ? [...this.points, this.cross ?? this.points.at(-1)] : [];
    const begun = this.tool === "box" && open.length === 2 ? corners({ kind: "box", points: open }) : open;
    const drawing = begun.length > 1 ? [s("path", { class: "defect under", d: path(begun, false) }), s("path", { class: "defect", d: path(begun, this.tool === "box") })] : [];
    const arm = 9 / this.view.scale;
    const cross = this.tool && this.cross ? [s("path", { class: "cross", d: `M${this.cross[0] - arm} ${this.cross[1]}h${2 * arm}M${this.cross[0]} ${this.cross[1] - arm}v${2 * arm}` })] : [];
    this.svg.setAttribute("viewBox", `0 0 ${this.size[0]} ${this.size[1]}`);
    replace(this.svg, outlines, shapes, drawing, cross);
  }

  // -- drawing -----------------------------------------------------------------------------------------

  // Begins to draw a "box" or a "polygon".
  use(tool) {
    this.cancel();
    this.tool = tool;
    this.cross = [this.size[0] / 2, this.size[1] / 2];
    this.stage.classList.add("draws");
    this.stage.focus();
    this.place();
    this.changed?.(tool);
  }

  cancel() {
    const had = this.tool;
    this.tool = null;
    this.points = [];
    this.cross = null;
    this.stage.classList.remove("draws");
    if (this.view) this.draw();
    if (had) this.changed?.(null);
  }

  corner(point) {
    if (this.tool === "polygon" && this.points.length > 2) {
      const [x, y] = this.points[0];
      if (Math.hypot(point[0] - x, point[1] - y) * this.view.scale < NEAR) return this.finish();
    }
    this.points.push(point);
    this.cross = point;
    if (this.tool === "box" && this.points.length === 2) return this.finish();
    return this.draw();
  }

  finish() {
    const kind = this.tool;
    const distinct = this.points.filter((point, number, all) => number === 0 || point[0] !== all[number - 1][0] || point[1] !== all[number - 1][1]);
    const flat = (axis) => new Set(distinct.map((point) => point[axis])).size < 2;
    if (distinct.length < (kind === "box" ? 2 : 3) || flat(0) || flat(1)) return;
    const shape = { kind, points: distinct.map((point) => point.map((value) => Math.round(value * 100) / 100)) };
    this.cancel();
    this.shapes = [...this.shapes, shape];
    this.draw();
    this.drawn?.(shape, this.shapes);
  }

  // -- input -------------------------------------------------------------------------------------------

  at(event) {
    const { left, top } = this.box;
    return [event.clientX - left, event.clientY - top];
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...this.at(event));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.at(event));
      if (this.tool && this.pointers.size === 1) this.corner(toImage(this.view, ...this.at(event), this.size));
      else stage.classList.add("drags");
    });
    stage.addEventListener("pointermove", (event) => {
      const now = this.at(event);
      const before = this.pointers.get(event.pointerId);
      if (this.tool) {
        this.cross = toImage(this.view, ...now, this.size);
        this.draw();
      }
      if (!before) return;
      if (this.pointers.size === 2) {
        const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
        const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (!this.tool) {
        this.move(now[0] - before[0], now[1] - before[1]);
      }
      this.pointers.set(event.pointerId, now);
    });
    const up = (event) => {
      const begun = this.pointers.delete(event.pointerId);
      stage.classList.remove("drags");
      // A box may be drawn in one stroke, or by two clicks.
      if (begun && this.tool === "box" && this.points.length === 1 && event.type === "pointerup") {
        const end = toImage(this.view, ...this.at(event), this.size);
        const [x, y] = this.points[0];
        if (Math.hypot(end[0] - x, end[1] - y) * this.view.scale > NEAR) this.corner(end);
      }
    };
    stage.addEventListener("pointerup", up);
    stage.addEventListener("pointercancel", up);
    stage.addEventListener("dblclick", (event) => {
      event.preventDefault();
      if (this.tool === "polygon") this.finish();
      else if (!this.tool) this.zoom(2, ...this.at(event));
    });
    stage.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const actions = {
      "+": () => this.zoom(1.5), "=": () => this.zoom(1.5), "-": () => this.zoom(1 / 1.5), 0: () => this.reset(),
    };
    if (this.tool) {
      Object.assign(actions, {
        " ": () => this.corner([...this.cross]), Enter: () => (this.tool === "box" ? this.corner([...this.cross]) : this.finish()),
        Escape: () => this.cancel(), Backspace: () => { this.points.pop(); this.draw(); },
      });
    }
    if (step && this.tool) {
      const pace = (event.shiftKey ? 0.1 : 0.01) * Math.max(...this.size);
      const clip = (value, most) => Math.max(0, Math.min(most, value));
      this.cross = [clip(this.cross[0] + step[0] * pace, this.size[0]), clip(this.cross[1] + step[1] * pace, this.size[1])];
      this.draw();
    } else if (step && (this.touched || event.shiftKey)) {
      this.move(-40 * step[0], -40 * step[1]);
    } else if (event.key in actions) {
      actions[event.key]();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
