// Elements of the page. Text from images, files and the network is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

// An element with its attributes and children; `on…` are listeners, false and null leave an attribute or child out.
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

const SIGNS = {
  accepted: ["M12 1.5a10.5 10.5 0 1 0 0 21a10.5 10.5 0 0 0 0-21Z", "M6.8 12.4l3.6 3.6l6.9-7.6"],
  rejected: ["M7.65 1.5h8.7l6.15 6.15v8.7l-6.15 6.15h-8.7L1.5 16.35v-8.7Z", "M8.1 8.1l7.8 7.8M15.9 8.1l-7.8 7.8"],
  other: ["M12 .8L23.2 12L12 23.2L.8 12Z", "M7.6 9.9h8.8M7.6 14.1h8.8M14.6 7.2l-5.2 9.6"],
};

// Sign of a decision: its outline and its inner line both tell the kind, without any colour.
export function sign(kind) {
  const [outline, inner] = SIGNS[kind] ?? SIGNS.other;
  return s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
    s("path", { d: outline, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linejoin": "round" }),
    s("path", { d: inner, fill: "none", stroke: "currentColor", "stroke-width": 2.6, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

export function field(label, control, attributes = {}) {
  return h("label", { class: "field", ...attributes }, h("span", {}, label), control);
}

export function options(pairs, chosen) {
  return pairs.map(([value, text]) => h("option", { value, selected: value === chosen }, text));
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function tiles(pairs) {
  return h("dl", { class: "tiles" }, pairs.map(([name, value, small]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value, small ? [" ", h("small", {}, small)] : null))));
}

// Calls `action` once the calls have paused for so many milliseconds.
export function debounced(action, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}
