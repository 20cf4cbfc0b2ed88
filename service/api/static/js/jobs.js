/** The jobs that the page knows, kept up with the stream: a record of each, and the whole curve of those drawn. */

import { json } from "./api.js";
import { POINTS, append, best, curveOf, thinned } from "./curve.js";
import { isLeaving } from "./health.js";
import { complain } from "./notices.js";
import { get, set } from "./store.js";
import { follow } from "./stream.js";

const PAGE = 50;
const MAX_PAGE = 200; // of the service
const SPARK_POINTS = 40;
const REFRESH_MS = 500;
const RETRY_MS = 5_000;
export const ACTIVE = ["queued", "running"];

const jobs = new Map(); // id to the service's record with `spark`, the thinned curve
const curves = new Map(); // id to the curve of a job that is drawn
const loading = new Set();
const missing = new Set(); // ids of which the service knows no job
let following = PAGE; // how many of the newest are kept up to date
let older = null; // the cursor to those before
let reached = false; // whether the reader has gone further back than the newest

/** Begin: the stream first, then what there is, so that nothing falls between. */
export function followJobs() {
  set("jobs", jobs);
  follow(heard, () => refreshSoon());
}

/** The jobs in the order in which they are shown: those that run, then the newest first. */
export function inOrder() {
  const running = (job) => (job.state === "running" ? 1 : 0);
  return [...jobs.values()].sort((a, b) => running(b) - running(a) || (a.id < b.id ? 1 : -1));
}

export function hasOlder() {
  return older !== null;
}

/** Load the page of jobs before those that are known. */
export async function loadOlder() {
  const page = await json("GET", `/jobs?order=desc&limit=${PAGE}&points=${SPARK_POINTS}&cursor=${encodeURIComponent(older)}`);
  following = Math.min(following + PAGE, MAX_PAGE);
  page.items.forEach(take);
  [older, reached] = [page.next_cursor, true];
  set("jobs", jobs);
}

/** A job that a call was answered with. */
export function learn(job) {
  take(job);
  set("jobs", jobs);
}

function forget(id) {
  jobs.delete(id);
  curves.delete(id);
  set("jobs", jobs);
}

/** The whole curve of a job, where it is known; else it is asked for, and `jobs` changes when it has come. */
export function curve(id) {
  if (!curves.has(id)) load(id);
  return curves.get(id);
}

async function load(id) {
  if (loading.has(id)) return;
  loading.add(id);
  try {
    const job = await json("GET", `/jobs/${id}?points=${POINTS}`);
    curves.set(id, curveOf(job));
    learn(job);
  } catch (error) {
    if (error.status === 404) miss(id);
    else await later(error);
  } finally {
    loading.delete(id);
  }
}

function miss(id) {
  missing.add(id);
  forget(id);
}

/** Say why there is no answer, and have it asked for again after a while. */
async function later(error) {
  if (error.status !== 401 && error.status !== 0) complain(error);
  await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  set("jobs", jobs);
}

function take(job) {
  if (isOutdated(job)) return;
  const whole = curveOf(job);
  jobs.set(job.id, { ...job, losses: null, validation_losses: null, spark: thinned(whole, SPARK_POINTS), ...figures(whole) });
}

/** Whether a record is older than what the stream has told since it was asked for; one of a job that has ended is not. */
function isOutdated(job) {
  const known = jobs.get(job.id);
  if (!known || !ACTIVE.includes(job.state)) return false;
  return !ACTIVE.includes(known.state) || (known.state === job.state && known.epoch > job.epoch);
}

/** The loss of the last epoch, and the lowest, of validation where there is one. */
function figures(whole) {
  const place = best(whole);
  return {
    loss: whole.losses.at(-1) ?? null,
    best: place < 0 ? null : (whole.validation ?? whole.losses)[place],
    bestEpoch: place < 0 ? null : whole.epochs[place],
  };
}

let timer = null;
let tries = 0;

function refreshSoon(ms = REFRESH_MS) {
  timer ??= setTimeout(async () => {
    timer = null;
    try {
      await refresh();
      tries = 0;
    } catch (error) {
      if (error.status !== 401 && error.status !== 0) complain(error);
      tries += 1;
      if (tries < 5) refreshSoon(REFRESH_MS * 2 ** tries);
    }
  }, jobs.size ? ms : 0);
}

/** Read the newest jobs, and all that run, however old. */
async function refresh() {
  const list = (query) => json("GET", `/jobs?order=desc&points=${SPARK_POINTS}&${query}`);
  const [newest, running] = await Promise.all([list(`limit=${following}`), list(`state=running&limit=${MAX_PAGE}`)]);
  const first = newest.items.at(-1)?.id ?? "";
  const there = new Set([...newest.items, ...running.items].map((job) => job.id));
  const chosen = get("drawn") ?? new Set();
  for (const [id, job] of jobs) {
    if (there.has(id)) continue;
    const gone = id >= first || !newest.next_cursor;
    const passed = !reached && !chosen.has(id) && !ACTIVE.includes(job.state); // which `older` begins with
    if (gone || passed) forget(id);
    else if (ACTIVE.includes(job.state)) load(id);
  }
  [...running.items, ...newest.items].forEach(take);
  for (const id of chosen) {
    if (!jobs.has(id) && !missing.has(id)) load(id);
  }
  for (const [id, known] of curves) {
    if ((known.epochs.at(-1) ?? 0) < (jobs.get(id)?.epoch ?? 0)) load(id);
  }
  if (!reached || !newest.next_cursor) older = newest.next_cursor;
  set("jobs", jobs);
  set("jobs-read", true);
}

function heard(kind, event) {
  if (kind === "shutdown") return isLeaving();
  const job = jobs.get(event.job_id);
  if (kind === "epoch" && job) return epoch(job, event);
  if (kind === "state" && job && ACTIVE.includes(job.state)) jobs.set(job.id, { ...job, state: event.state, reason: event.reason });
  refreshSoon();
  return set("jobs", jobs);
}

function epoch(job, event) {
  if (event.epoch <= job.epoch) return;
  const spark = { ...job.spark };
  append(spark, { ...event, epoch: (spark.epochs.at(-1) ?? 0) + 1 });
  const value = event.validation_loss ?? event.loss;
  const better = typeof value === "number" && (job.best === null || value < job.best);
  jobs.set(job.id, {
    ...job,
    epoch: event.epoch,
    loss: event.loss,
    spark: spark.epochs.length > 2 * SPARK_POINTS ? thinned(spark, SPARK_POINTS) : spark,
    ...(better ? { best: value, bestEpoch: event.epoch } : {}),
  });
  const drawn = curves.get(job.id);
  if (drawn && !append(drawn, event)) load(job.id);
  if (drawn && drawn.epochs.length > 2 * POINTS) curves.set(job.id, thinned(drawn, POINTS));
  set("jobs", jobs);
}

/** Those whose curves are on the chart: what the reader chose, or the newest that has begun. */
export function drawn() {
  const chosen = get("drawn");
  if (chosen) return [...chosen].filter((id) => jobs.has(id) || loading.has(id));
  const newest = [...jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  const begun = newest.find((job) => job.epoch > 0 || job.state === "running") ?? newest[0];
  return begun ? [begun.id] : [];
}
