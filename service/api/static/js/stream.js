/** The one stream of events, read by fetch because EventSource sends no headers; it comes back by itself. */

import { Problem, call, isAsking } from "./api.js";
import { get, set, watch } from "./store.js";

const SILENT_MS = 40_000; // the service says something every 15 seconds
const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 15_000;

let last = null; // the id of the newest event
let again = () => {};
let controller = new AbortController();

// A connection that is lost with the network would be missed only after a while.
addEventListener("offline", () => controller.abort());
addEventListener("online", () => again());
watch(["key"], () => get("key") === "given" && again());

/** Follow the events for ever: `heard` is called with each, `connected` whenever the stream begins anew. */
export async function follow(heard, connected) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    set("stream", { state: "connecting" });
    let why = null;
    try {
      await read(heard, () => {
        wait = FIRST_WAIT_MS;
        set("stream", { state: "live" });
        connected();
      });
    } catch (error) {
      // Whatever ended the stream, be it the network or a refusal, the answer is to begin it again.
      if (error instanceof Problem) why = error;
    }
    set("stream", { state: "waiting", seconds: Math.round(wait / 1000), why });
    await pause(wait);
    wait = Math.min(wait * 2, MAX_WAIT_MS);
  }
}

/** Do not wait any longer to connect. */
export function reconnectNow() {
  again();
}

function pause(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    again = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

async function read(heard, begun) {
  const mine = (controller = new AbortController());
  const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
  let watchdog = null;
  const watchOver = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => (isAsking() ? watchOver() : mine.abort()), SILENT_MS);
  };
  try {
    watchOver();
    const answer = await call("GET", "/events", { headers, signal: mine.signal });
    begun();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      watchOver();
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) take(frame, heard);
    }
  } finally {
    clearTimeout(watchdog);
  }
}

/** One event in the form of Server-Sent Events: lines `id`, `event` and `data`. */
function take(frame, heard) {
  const fields = {};
  for (const line of frame.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.id !== undefined) last = fields.id;
  if (fields.event === undefined) return;
  try {
    heard(fields.event, JSON.parse(fields.data));
  } catch (error) {
    reportError(error); // a fault of the page, for which the stream need not end
  }
}
