// Requests to the server that gave the page, and its live events.

export class ApiError extends Error {
  // `problem`: the answer, or the part of it that names the problem.
  constructor(status, message, problem = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

export const events = new EventTarget();
const KINDS = ["decision", "line", "fit", "model", "drift"];

export function address(path, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return text ? `${path}?${text}` : path;
}

async function send(method, path, { query, json, form, body, signal } = {}) {
  const init = { method, signal, headers: { Accept: "application/json" }, credentials: "same-origin" };
  if (json !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(json);
  } else if (form !== undefined) {
    init.body = form;
  } else if (body !== undefined) {
    init.body = body;
  }
  let answer;
  try {
    answer = await fetch(address(path, query), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "");
  }
  if (answer.status === 204) return null;
  const isJson = (answer.headers.get("Content-Type") ?? "").includes("json");
  const content = isJson ? await answer.json() : await answer.text();
  if (answer.ok) return content;
  if (answer.status === 401) events.dispatchEvent(new CustomEvent("locked"));
  const words = isJson ? content.error ?? content.detail ?? "" : "";
  throw new ApiError(answer.status, typeof words === "string" && words ? words : `${answer.status} ${answer.statusText}`, isJson ? content : {});
}

export const get = (path, query, signal) => send("GET", path, { query, signal });
export const post = (path, json = {}) => send("POST", path, { json });
export const put = (path, json) => send("PUT", path, { json });
export const remove = (path) => send("DELETE", path, {});
export const upload = (path, form, query) => send("POST", path, { form, query });

let source = null;

// Opens the stream of live events; the browser opens it again by itself when the server comes back.
export function listen() {
  source?.close();
  source = new EventSource("api/live");
  source.addEventListener("open", () => events.dispatchEvent(new CustomEvent("connected")));
  source.addEventListener("error", () => {
    events.dispatchEvent(new CustomEvent("disconnected"));
    // A browser gives up after an answer that is no stream, as from a proxy while the server starts.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => events.dispatchEvent(new CustomEvent(kind, { detail: JSON.parse(event.data) })));
  }
}
window.addEventListener("pagehide", () => source?.close());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) listen();
});

// -- decisions -----------------------------------------------------------------------------------------

export const recordOf = (answer) => answer.record ?? answer.decision ?? answer;
export const kindOf = (record) => (record.other_kind ? "other" : record.is_anomalous ? "rejected" : "accepted");
export const drawing = (id, what, side) => address(`api/decisions/${id}/drawing/${what}`, { side });
