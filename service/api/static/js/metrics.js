/** The service's own figures, read from /metrics every few seconds while the page is seen, and kept over a reload. */

import { call, json } from "./api.js";
import { get, set } from "./store.js";
import { whileSeen } from "./seen.js";

export const KEPT_SECONDS = 15 * 60;
const EVERY_MS = 5_000;
const KEPT = "lora.samples";
const FORWARD = "/models/{model_id}/forward";

/** Begin to read; what was read before a reload is there at once. */
export function readMetrics() {
  set("samples", restored());
  whileSeen(EVERY_MS, async () => {
    try {
      if (!get("limits")) await readLimits();
      const { sample, facts } = read(await (await call("GET", "/metrics")).text());
      set("facts", facts);
      set("samples", kept([...get("samples"), sample]));
      set("samples-problem", null);
    } catch (error) {
      set("samples-problem", error);
    }
  });
}

async function readLimits() {
  const answer = await json("GET", "/limits");
  set("durable", answer.durable);
  set("limits", Object.fromEntries(Object.entries(answer.limits).map(([name, limit]) => [name, limit.value])));
}

function restored() {
  try {
    return recent(JSON.parse(sessionStorage.getItem(KEPT)) ?? []);
  } catch {
    return [];
  }
}

function kept(samples) {
  const some = recent(samples);
  sessionStorage.setItem(KEPT, JSON.stringify(some));
  return some;
}

function recent(samples) {
  const oldest = Date.now() / 1000 - KEPT_SECONDS;
  return samples.filter((sample) => sample.at >= oldest);
}

/** The lines of Prometheus' text format: {name, labels, value}. */
function* lines(text) {
  for (const line of text.split("\n")) {
    const found = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/(\w+)="([^"]*)"/g)].map(([, k, v]) => [k, v]));
    yield { name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) };
  }
}

/** One look at the counters; `buckets` are [upper bound in seconds, forwards answered so fast] of all forwards. */
export function read(text) {
  const sample = {
    at: Date.now() / 1000, forwards: 0, running: 0, queued: 0, memory: 0, models: 0, workers: 0,
    errors: 0, refused: 0, sheds: 0, buckets: [],
  };
  const facts = { version: "", device: "", started: null };
  const buckets = new Map();
  for (const { name, labels, value } of lines(text)) {
    if (name === "lora_forwards_total") sample.forwards = value;
    else if (name === "lora_jobs" && labels.state in sample) sample[labels.state] = value;
    else if (name === "lora_memory_bytes") sample.memory = value;
    else if (name === "lora_models") sample.models = value;
    else if (name === "lora_workers_ready") sample.workers = value;
    else if (name === "lora_shed_total") sample.sheds += value;
    else if (name === "lora_build_info") Object.assign(facts, { version: labels.version, device: labels.device });
    else if (name === "process_start_time_seconds") facts.started = new Date(1000 * value).toISOString();
    else if (name === "lora_http_request_duration_seconds_count") {
      if (labels.status >= "500" && labels.route !== "/readyz") sample.errors += value;
      else if (labels.status >= "400" && labels.status < "500") sample.refused += value;
    } else if (name === "lora_http_request_duration_seconds_bucket" && labels.route === FORWARD) {
      buckets.set(labels.le, (buckets.get(labels.le) ?? 0) + value);
    }
  }
  sample.buckets = [...buckets].map(([bound, total]) => [bound === "+Inf" ? null : Number(bound), total]);
  return { sample, facts };
}

/** How far a counter rose between two samples; one that fell began anew. */
export function rise(earlier, later, name) {
  return later[name] >= earlier[name] ? later[name] - earlier[name] : later[name];
}

/** The newest sample that is at least so many seconds older than the last, or else the first. */
export function before(samples, seconds) {
  const last = samples.at(-1);
  return samples.findLast((sample) => last.at - sample.at >= seconds) ?? samples[0];
}

/** A quantile of the forwards' seconds between two samples, by line within its bucket; null where there were none. */
export function quantile(earlier, later, q) {
  const old = new Map(earlier.buckets.map(([bound, total]) => [bound, total]));
  const restarted = later.forwards < earlier.forwards;
  const counts = later.buckets.map(([bound, total]) => [bound, total - (restarted ? 0 : old.get(bound) ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let [low, below] = [0, 0];
  for (const [bound, upTo] of counts) {
    if (upTo >= q * total) {
      if (bound === null) return low;
      return low + ((bound - low) * (q * total - below)) / (upTo - below || 1);
    }
    [low, below] = [bound, upTo];
  }
  return low;
}
