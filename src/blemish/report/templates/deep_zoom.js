"use strict";
// Zoom into two layers of one scene. Tiles are images of the IIIF layout beside this page; nothing else is loaded.
const scene = JSON.parse(document.getElementById("scene").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("canvas"), context = canvas.getContext("2d"), buffer = document.createElement("canvas");
const layers = new Map(scene.layers.map((layer) => [layer.name, layer]));
const select = { above: byId("above"), below: byId("below") };
const amount = byId("amount");
const MOST_TILES = 800, NEAR = 12, LARGEST = 16;
const view = { x: scene.width / 2, y: scene.height / 2, zoom: 1 }; // place in the middle; CSS pixels a pixel of the scene
let size = { width: 1, height: 1, ratio: 1 }, chosen = -1, wanted = 0, loaded = 0;
let drawn = -1; // the number of the next frame; nothing is drawn before the size is known
[select.below.value, select.above.value] = scene.start;

// -- tiles ------------------------------------------------------------------------------------------------------------

const tiles = new Map(); // by address, the least recently used first

function tile(address) {
  let image = tiles.get(address);
  if (image) {
    tiles.delete(address);
  } else {
    image = new Image();
    image.onload = request;
    image.onerror = request;
    image.src = address;
    for (const old of tiles.keys()) {
      if (tiles.size < MOST_TILES) break;
      tiles.delete(old);
    }
  }
  tiles.set(address, image);
  return image;
}

function address(layer, factor, column, row) {
  const step = scene.tile * factor, x = column * step, y = row * step;
  const width = Math.min(step, layer.width - x), height = Math.min(step, layer.height - y);
  const reduced = [width, height].map((length) => Math.ceil(length / factor));
  return `${encodeURIComponent(layer.name)}/${x},${y},${width},${height}/${reduced}/0/default.jpg`;
}

/** Draw what is there of a layer, coarse levels first, and ask for the tiles of the level that the zoom needs. */
function drawLayer(target, layer) {
  const { width, height, ratio } = size, zoom = view.zoom * layer.scale * ratio; // device pixels a pixel of the layer
  const left = width * ratio / 2 - view.x * view.zoom * ratio, top = height * ratio / 2 - view.y * view.zoom * ratio;
  const best = Math.max(0, Math.min(layer.levels - 1, Math.floor(-Math.log2(zoom) + 1e-6)));
  target.imageSmoothingEnabled = zoom < 3;
  for (let level = layer.levels - 1; level >= best; level--) {
    const factor = 2 ** level, step = scene.tile * factor * zoom;
    const columns = Math.ceil(layer.width / scene.tile / factor), rows = Math.ceil(layer.height / scene.tile / factor);
    const ask = level === best || level === layer.levels - 1;
    for (let row = Math.max(0, Math.floor(-top / step)); row < rows && top + row * step < height * ratio; row++) {
      for (let column = Math.max(0, Math.floor(-left / step)); column < columns && left + column * step < width * ratio; column++) {
        const where = address(layer, factor, column, row);
        if (!ask && !tiles.has(where)) continue;
        const image = tile(where);
        if (ask) wanted++;
        if (image.complete && ask) loaded++;
        if (!image.complete || !image.naturalWidth) continue;
        // The last pixel of a level may stand for less than its factor: the tile is cut at the edge of the layer.
        const x = left + column * step, y = top + row * step;
        const shown = [Math.min(scene.tile, layer.width / factor - column * scene.tile), Math.min(scene.tile, layer.height / factor - row * scene.tile)];
        const [right, bottom] = [x + shown[0] * factor * zoom, y + shown[1] * factor * zoom];
        const box = [Math.round(x), Math.round(y), Math.round(right) - Math.round(x), Math.round(bottom) - Math.round(y)];
        target.drawImage(image, 0, 0, shown[0], shown[1], ...box);
      }
    }
  }
  return best;
}

// -- drawing ----------------------------------------------------------------------------------------------------------

const mode = () => document.querySelector("input[name=mode]:checked").value;
const curtain = () => amount.value / 100 * size.width;

function draw() {
  drawn = 0;
  wanted = loaded = 0;
  const { width, height, ratio } = size, pixels = [width * ratio, height * ratio];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, ...pixels);
  const below = drawLayer(context, layers.get(select.below.value));
  const other = buffer.getContext("2d");
  other.clearRect(0, 0, ...pixels);
  const above = drawLayer(other, layers.get(select.above.value));
  const isCurtain = mode() === "curtain";
  const from = isCurtain ? Math.round(curtain() * ratio) : 0;
  context.globalAlpha = isCurtain ? 1 : amount.value / 100;
  if (from < pixels[0]) context.drawImage(buffer, from, 0, pixels[0] - from, pixels[1], from, 0, pixels[0] - from, pixels[1]);
  context.globalAlpha = 1;
  if (byId("regions").checked) drawRegions(ratio);
  if (isCurtain) {
    for (const [line, colour] of [[4, "#000a"], [2, "#fff"]]) {
      context.fillStyle = colour;
      context.fillRect(from - line / 2 * ratio, 0, line * ratio, pixels[1]);
    }
  }
  Object.assign(canvas.dataset, { below, above, waiting: wanted - loaded, zoom: view.zoom, x: view.x, y: view.y });
  byId("zoom").value = `${(100 * view.zoom).toPrecision(3).replace(/\.0+$/, "")} %`;
  drawScale();
}

function request() {
  drawn ||= requestAnimationFrame(draw);
}

const outlines = scene.regions.map((region) => {
  const path = new Path2D();
  for (const ring of region.rings) {
    ring.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
});

function onScreen(ratio) {
  const zoom = view.zoom * ratio;
  context.setTransform(zoom, 0, 0, zoom, (size.width / 2 - view.x * view.zoom) * ratio, (size.height / 2 - view.y * view.zoom) * ratio);
}

function drawRegions(ratio) {
  onScreen(ratio);
  outlines.forEach((path, number) => {
    for (const [line, colour] of [[4, "#000c"], [2, number === chosen ? "#ffe14a" : "#4fe3d0"]]) {
      context.lineWidth = line / view.zoom;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  });
  context.setTransform(1, 0, 0, 1, 0, 0);
}

/** A bar of 1, 2 or 5 times a power of ten, about 120 pixels long. */
function drawScale() {
  const unit = scene.pixel ?? 1, ideal = 120 / view.zoom * unit, power = 10 ** Math.floor(Math.log10(ideal));
  const length = [5, 2, 1].map((one) => one * power).find((one) => one <= ideal) ?? power;
  const [, factor, name] = scene.pixel === null ? [0, 1, "px"] : [[1000, 1000, "m"], [10, 10, "cm"], [1, 1, "mm"], [0, 0.001, "µm"]].find(([least]) => length >= least);
  byId("scale").firstElementChild.style.width = `${length / unit * view.zoom}px`;
  byId("scale").lastElementChild.textContent = `${+(length / factor).toPrecision(1)} ${name}`;
}

function describe() {
  for (const place of ["above", "below"]) byId(`note-${place}`).textContent = layers.get(select[place].value).note;
  byId("legend").hidden = !["above", "below"].some((place) => layers.get(select[place].value).heat);
  byId("amount-label").textContent = mode() === "curtain" ? "Place of the curtain" : "Opacity of the layer above";
  request();
}

// -- view -------------------------------------------------------------------------------------------------------------

const whole = () => Math.min(size.width / scene.width, size.height / scene.height);

function clamp() {
  view.zoom = Math.min(LARGEST, Math.max(whole() / 2, view.zoom));
  view.x = Math.min(scene.width, Math.max(0, view.x));
  view.y = Math.min(scene.height, Math.max(0, view.y));
  request();
}

function fit(left = 0, top = 0, width = scene.width, height = scene.height, margin = 0.98) {
  view.zoom = Math.min(margin * Math.min(size.width / width, size.height / height), 8);
  [view.x, view.y] = [left + width / 2, top + height / 2];
  clamp();
}

/** Zoom by a factor; the place under (x, y) of the canvas, its middle by default, stays where it is. */
function zoomBy(factor, x = size.width / 2, y = size.height / 2) {
  const before = view.zoom, [dx, dy] = [x - size.width / 2, y - size.height / 2];
  view.zoom = Math.min(LARGEST, Math.max(whole() / 2, before * factor));
  view.x += dx / before - dx / view.zoom;
  view.y += dy / before - dy / view.zoom;
  clamp();
}

function move(dx, dy) {
  view.x -= dx / view.zoom;
  view.y -= dy / view.zoom;
  clamp();
}

function choose(number, zooms = true) {
  chosen = number;
  document.querySelectorAll("tbody tr").forEach((row, index) => {
    row.classList.toggle("chosen", index === number);
    if (index === number && !zooms) row.scrollIntoView({ block: "nearest" });
  });
  if (zooms) {
    const [left, top, width, height] = scene.regions[number].box, side = Math.max(width, height, 32);
    fit(left + width / 2 - side, top + height / 2 - side, 2 * side, 2 * side);
  }
  request();
}

function swap() {
  [select.above.value, select.below.value] = [select.below.value, select.above.value];
  describe();
}

function setMode(name) {
  document.querySelector(`input[name=mode][value=${name}]`).checked = true;
  describe();
}

function step(by) {
  select.above.selectedIndex = (select.above.selectedIndex + by + scene.layers.length) % scene.layers.length;
  describe();
}

function slide(by) {
  amount.value = +amount.value + by;
  request();
}

// -- events -----------------------------------------------------------------------------------------------------------

const keys = {
  ArrowLeft: () => move(size.width / 8, 0), ArrowRight: () => move(-size.width / 8, 0),
  ArrowUp: () => move(0, size.height / 8), ArrowDown: () => move(0, -size.height / 8),
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => fit(), 1: () => zoomBy(1 / view.zoom),
  "[": () => slide(-5), "]": () => slide(5), x: swap, c: () => setMode(mode() === "curtain" ? "fader" : "curtain"),
  n: () => step(1), p: () => step(-1), r: () => { byId("regions").checked = !byId("regions").checked; request(); },
};
canvas.addEventListener("keydown", (event) => {
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomBy(2 ** (-event.deltaY / (event.deltaMode ? 8 : 300)), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("dblclick", (event) => zoomBy(2, event.offsetX, event.offsetY));

const pointers = new Map();
let sliding = false, moved = 0;
const near = (event) => mode() === "curtain" && Math.abs(event.offsetX - curtain()) <= NEAR;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  [sliding, moved] = [pointers.size === 1 && near(event), 0];
  canvas.classList.toggle("moving", !sliding);
});
canvas.addEventListener("pointermove", (event) => {
  showPlace(event);
  const before = pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
  canvas.classList.toggle("curtain-near", sliding || (!before && near(event)));
  if (!before) return;
  pointers.set(event.pointerId, now);
  const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  moved += Math.abs(dx) + Math.abs(dy);
  if (sliding) {
    amount.value = 100 * now[0] / size.width;
    request();
  } else if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
    move(dx / 2, dy / 2);
    zoomBy(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  } else {
    move(dx, dy);
  }
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    canvas.classList.remove("moving");
    if (name === "pointerup" && moved < 5 && !sliding) pick(event);
    sliding = false;
  });
}

/** Choose the region under the pointer in the table. */
function pick(event) {
  if (!byId("regions").checked) return;
  onScreen(1);
  const place = [event.offsetX, event.offsetY];
  const found = outlines.findIndex((path) => context.isPointInPath(path, ...place, "evenodd"));
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (found >= 0) choose(found, false);
}

function showPlace(event) {
  const place = [view.x + (event.offsetX - size.width / 2) / view.zoom, view.y + (event.offsetY - size.height / 2) / view.zoom];
  const inside = place[0] >= 0 && place[1] >= 0 && place[0] < scene.width && place[1] < scene.height;
  byId("place").value = inside ? `(${Math.floor(place[0])}, ${Math.floor(place[1])})` : "";
}

for (const place of ["above", "below"]) select[place].addEventListener("change", describe);
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", describe);
for (const one of [amount, byId("regions")]) one.addEventListener("input", request);
for (const [id, act] of [["swap", swap], ["in", () => zoomBy(1.5)], ["out", () => zoomBy(1 / 1.5)], ["whole", () => fit()], ["full", () => zoomBy(1 / view.zoom)]]) {
  byId(id).addEventListener("click", act);
}
for (const button of document.querySelectorAll("button.region")) {
  button.addEventListener("click", () => choose(+button.dataset.region));
}
new ResizeObserver(() => {
  const ratio = window.devicePixelRatio || 1;
  size = { width: canvas.clientWidth || 1, height: canvas.clientHeight || 1, ratio };
  for (const one of [canvas, buffer]) [one.width, one.height] = [size.width * ratio, size.height * ratio];
  if (drawn < 0) {
    drawn = 0;
    fit();
  }
  clamp();
}).observe(canvas);
describe();
