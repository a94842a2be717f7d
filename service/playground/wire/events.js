// What happens to a job, as server-sent events over fetch: EventSource could not send a key.

import { Problem, getJson, pause, send } from "./api.js";

const ENDS = new Set(["done", "failed", "cancelled"]);
const SILENCE_MS = 40_000; // the service says something every 15 s
const LONGEST_PAUSE_MS = 15_000;

/** The events of a stream, as {id, event, data, retry}, per the HTML standard. */
export async function* parse(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { data: [] };
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length || event.retry) yield { ...event, data: event.data.join("\n") };
        event = { data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "data") event.data.push(text);
      else if (name === "event" || name === "id") event[name] = text;
      else if (name === "retry" && /^\d+$/.test(text)) event.retry = Number(text);
    }
  }
}

/**
 * Follows a job to its end and returns its view. A connection that is lost is made again and goes on where it was.
 *
 * @param {string} id of the job.
 * @param {{progress, preview, lost, found}} on listeners: `lost` gets a Problem or null, and the seconds to the next try.
 * @param {AbortSignal} signal ends it.
 * @throws {Problem} the job is gone, or a key is needed.
 */
export async function follow(id, on, signal) {
  let last = null;
  let retry = 2000;
  let failures = 0;
  while (true) {
    let problem = null;
    try {
      for await (const event of connect(id, last, signal)) {
        if (event.open && failures) on.found();
        if (event.retry) retry = event.retry;
        if (event.id) last = event.id;
        if (!event.event) continue;
        failures = 0;
        const data = JSON.parse(event.data);
        if (ENDS.has(event.event)) return data;
        on[event.event]?.(data);
      }
      const job = await getJson(`jobs/${id}`, { signal });
      if (job.ended_at) return job;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Problem && !error.passing) throw error;
      problem = error instanceof Problem ? error : null;
    }
    failures += 1;
    const wait = problem?.retryAfter ? problem.retryAfter * 1000 : Math.min(retry * 1.5 ** (failures - 1), LONGEST_PAUSE_MS);
    on.lost(problem, wait / 1000);
    await Promise.race([pause(wait), new Promise((resolve) => addEventListener("online", resolve, { once: true }))]);
    signal.throwIfAborted();
  }
}

/** One connection: {open: true}, then its events. One that is silent for too long is taken for dead. */
async function* connect(id, last, signal) {
  const silence = new AbortController();
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  heard();
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  try {
    const response = await send(`jobs/${id}/events?previews=true`, {
      headers,
      signal: AbortSignal.any([signal, silence.signal]),
    });
    yield { open: true };
    if (response.status === 204) return;
    const watched = response.body.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          heard();
          controller.enqueue(chunk);
        },
      }),
    );
    yield* parse(watched);
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}
