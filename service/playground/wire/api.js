// Requests to the service: the key that goes with them, and what went wrong in sentences.

export const BASE = new URL("../..", import.meta.url);

const REMEDIES = {
  unauthorized: "Enter a key with the button “Key” at the top.",
  "rate-limited": "This key or address has asked too often; wait a little.",
  "quota-exceeded": "Wait until your other jobs have ended, or cancel some in the queue.",
  "storage-exceeded": "Your images are kept for a while; wait until some are forgotten, or ask for less.",
  busy: "Try again later, or ask for less.",
  "images-unavailable": "What keeps the images is away for a moment; they are not lost. Try again.",
  unavailable: "The queue is away for a moment; nothing that was accepted is lost. Try again.",
  unreachable: "See whether it runs (`make up`) and whether you are connected; then try again.",
};

/** Why a request failed: `message` is for people, `code` and `errors` are the service's own (RFC 9457). */
export class Problem extends Error {
  constructor(status, body, retryAfter = null) {
    super(sentence(body));
    this.status = status;
    this.code = body.code;
    this.errors = body.errors ?? [];
    this.page = body.type?.includes("/problems/") ? new URL(body.type, BASE).href : null;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may do better in a moment. */
  get passing() {
    return this.code === "unreachable" || this.status === 429 || this.status >= 500;
  }
}

function sentence(body) {
  const wrong = body.errors?.length
    ? body.errors.map((e) => `${field(e.pointer)}: ${e.reason}${e.allowed ? ` (allowed: ${e.allowed})` : ""}`).join("; ")
    : body.detail || body.title || "the request failed";
  const text = wrong.charAt(0).toUpperCase() + wrong.slice(1);
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return REMEDIES[body.code] ? `${ended} ${REMEDIES[body.code]}` : ended;
}

const field = (pointer) => pointer.split("/").filter(Boolean).join(" ").replaceAll("_", " ") || "the request";

export const key = {
  get() {
    return sessionStorage.getItem("key") ?? "";
  },
  set(value) {
    if (value) sessionStorage.setItem("key", value);
    else sessionStorage.removeItem("key");
  },
};

/** Called with the problem whenever the service wants a key. */
let onUnauthorized = () => {};
export const whenUnauthorized = (listener) => {
  onUnauthorized = listener;
};

/**
 * The response of a request that went well.
 *
 * @throws {Problem} it did not, or the service cannot be reached.
 */
export async function send(path, { method = "GET", json, headers = {}, signal } = {}) {
  const all = { ...headers };
  if (key.get()) all.Authorization = `Bearer ${key.get()}`;
  if (json !== undefined) all["Content-Type"] = "application/json";
  const body = json === undefined ? undefined : JSON.stringify(json);
  let response;
  try {
    response = await fetch(new URL(path, BASE), { method, headers: all, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, { code: "unreachable", detail: "The service does not answer" });
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: `The service answered ${response.status}` }));
  const found = new Problem(response.status, problem, Number(response.headers.get("Retry-After")) || null);
  if (response.status === 401) onUnauthorized(found);
  throw found;
}

export const getJson = async (path, options) => (await send(path, options)).json();

/** A picture that can be drawn. */
export const getPicture = async (path, options) => createImageBitmap(await (await send(path, options)).blob());

export const cancelJob = async (id) => (await send(`jobs/${id}`, { method: "DELETE" })).json();

/**
 * Asks for a job; sent again with the same key if the answer was lost, so that it is accepted once.
 *
 * @throws {Problem} it was refused.
 */
export async function ask(path, body) {
  const headers = { "Idempotency-Key": randomKey(), Prefer: "respond-async" };
  for (let attempt = 1; ; attempt++) {
    try {
      return await (await send(path, { method: "POST", json: body, headers })).json();
    } catch (error) {
      if (error.code !== "unreachable" || attempt === 3) throw error;
      await pause(attempt * 700);
    }
  }
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
