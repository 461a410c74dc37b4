// Messages of the page in the user's language; numbers and times in its form.

let messages = {};
let other = {};
let code = "en";
let plural = new Intl.PluralRules("en");
const kept = new Map();

export const language = () => code;

async function catalogue(name) {
  if (!kept.has(name)) {
    const answer = await fetch(`page/messages/${name}.json`);
    if (!answer.ok) throw new Error(`messages ${name}: ${answer.status}`);
    kept.set(name, await answer.json());
  }
  return kept.get(name);
}

// Languages that the server has, as [{code, name}], and the one to begin with.
export async function languages() {
  const answer = await fetch("page/messages.json");
  return answer.ok ? (await answer.json()).languages : [{ code: "en", name: "English" }];
}

export function preferred(known) {
  const codes = known.map((one) => one.code);
  const wanted = [remembered("language"), ...navigator.languages].filter(Boolean);
  for (const one of wanted) {
    const found = codes.find((name) => name === one) ?? codes.find((name) => name === one.split("-")[0]);
    if (found) return found;
  }
  return "en";
}

export async function useLanguage(name) {
  other = await catalogue("en");
  messages = await catalogue(name);
  code = name;
  plural = new Intl.PluralRules(name);
  document.documentElement.lang = name;
}

// The message `key` with its {placeholders} filled in.
export function t(key, values = {}) {
  const text = messages[key] ?? other[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// An English text of the server by its message; the text itself where the catalogue has none.
const said = (english, text) => (text && text.key in messages ? t(text.key, Object.fromEntries(Object.entries(text.values).map(([name, value]) => [name, translated(value)]))) : english);

// A problem of an answer, {error, remedy, error_text, remedy_text}, as one line.
export const explained = ({ error, remedy, error_text: what, remedy_text: help }) => [said(error, what), said(remedy, help)].filter(Boolean).join("; ");

// An English line of a state, such as that of a camera: its parts are looked for in the English catalogue.
export function translated(english) {
  if (!english || code === "en") return english;
  const whole = matched(english);
  if (whole) return said(english, whole);
  const [problem, ...remedy] = english.split("; ");
  return [problem, remedy.join("; ")].filter(Boolean).map((part) => said(part, matched(part))).join("; ");
}
let patterns = null;
function matched(text) {
  patterns ??= Object.entries(other).filter(([key]) => key.startsWith("problem.")).map(([key, template]) => {
    const parts = template.split(/\{(\w+)\}/);
    const own = parts.filter((_, place) => place % 2 === 0).join("").length;
    const escape = (part) => part.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    return { key, own, pattern: new RegExp(`^${parts.map((part, place) => (place % 2 ? `(?<${part}>(?:(?!; ).)+?)` : escape(part))).join("")}$`, "u") };
  }).sort((a, b) => b.own - a.own);
  for (const { key, pattern } of patterns) {
    const found = pattern.exec(text);
    if (found) return { key, values: { ...found.groups } };
  }
  return null;
}

// The form of a message that `count` takes: `KEY.one`, `KEY.other` and whatever else the language has.
export function tn(key, count, values = {}) {
  const form = `${key}.${plural.select(count)}`;
  return t(form in messages ? form : `${key}.other`, { count: integer(count), ...values });
}

export const integer = (value) => new Intl.NumberFormat(code, { maximumFractionDigits: 0 }).format(value);
export const decimal = (value, digits = 3) => new Intl.NumberFormat(code, { maximumSignificantDigits: digits }).format(value);
export const fixed = (value, digits) => new Intl.NumberFormat(code, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
export const percent = (value, digits = 1) => new Intl.NumberFormat(code, { style: "percent", maximumFractionDigits: digits }).format(value);

// Scores of one model are read beside each other, so that all have the digits of its threshold.
export function score(value, threshold = value) {
  const size = Math.abs(threshold) || 1;
  return fixed(value, Math.max(0, Math.min(6, 3 - Math.floor(Math.log10(size)))));
}

export function clock(time) {
  return new Intl.DateTimeFormat(code, { timeStyle: "medium" }).format(new Date(time));
}

export function moment(time) {
  const date = new Date(time);
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock(date) : new Intl.DateTimeFormat(code, { dateStyle: "medium", timeStyle: "short" }).format(date);
}

export function duration(seconds) {
  if (seconds < 1) return `${integer(seconds * 1000)} ms`;
  if (seconds < 60) return `${decimal(seconds, 2)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Choices of this browser. A browser may refuse to keep them; then they last as long as the page.
const here = new Map();
export function remembered(name) {
  try {
    return localStorage.getItem(`blemish.${name}`) ?? here.get(name) ?? null;
  } catch {
    return here.get(name) ?? null;
  }
}
export function remember(name, value) {
  here.set(name, value);
  try {
    localStorage.setItem(`blemish.${name}`, value);
  } catch {
    // Nothing to do: `here` has it.
  }
}
