/** Keeps up with the service: the stream tells what happens, and lists of jobs what there is. */

import { json } from "./api.js";
import { catchUp, extend, load } from "./curves.js";
import { isLeaving } from "./health.js";
import { ACTIVE, SPARK_POINTS, changed, forget, hearEpoch, hearState, inOrder, learn, recordOf } from "./jobs.js";
import { complain } from "./notices.js";
import { get, set } from "./store.js";
import { follow } from "./stream.js";

const PAGE = 50;
const MAX_PAGE = 200; // of the service
const REFRESH_MS = 500;
const TRIES = 5;

let following = PAGE; // how many of the newest are kept up to date
let older = null; // the cursor to those before
let reached = false; // whether the reader has gone further back than the newest

/** Begin: the stream first, then what there is, so that nothing falls between. */
export function followJobs() {
  changed();
  follow(heard, () => refreshSoon());
}

function heard(kind, event) {
  if (kind === "shutdown") return isLeaving();
  if (kind === "epoch" && recordOf(event.job_id)) {
    if (hearEpoch(event)) extend(event);
  } else {
    if (kind === "state") hearState(event);
    refreshSoon();
  }
  changed();
}

export function hasOlder() {
  return older !== null;
}

/** Load the page of jobs before those that are known. */
export async function loadOlder() {
  const page = await list(`limit=${PAGE}&cursor=${encodeURIComponent(older)}`);
  following = Math.min(following + PAGE, MAX_PAGE);
  [older, reached] = [page.next_cursor, true];
  learn(...page.items);
}

function list(query) {
  return json("GET", `/jobs?order=desc&points=${SPARK_POINTS}&${query}`);
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
      if (tries < TRIES) refreshSoon(REFRESH_MS * 2 ** tries);
    }
  }, inOrder().length ? ms : 0);
}

/** Read the newest jobs, and all that run, however old. */
async function refresh() {
  const [newest, running] = await Promise.all([list(`limit=${following}`), list(`state=running&limit=${MAX_PAGE}`)]);
  const chosen = get("drawn") ?? new Set();
  sift(newest, new Set([...newest.items, ...running.items].map((job) => job.id)), chosen);
  learn(...running.items, ...newest.items);
  catchUp(chosen);
  if (!reached || !newest.next_cursor) older = newest.next_cursor;
  set("jobs-read", true);
}

/** Of the jobs that no list has: forget those that are deleted or passed by, ask for those that were under way. */
function sift(newest, there, chosen) {
  const first = newest.items.at(-1)?.id ?? "";
  for (const job of inOrder()) {
    if (there.has(job.id)) continue;
    const active = ACTIVE.includes(job.state);
    const gone = job.id >= first || !newest.next_cursor;
    const passed = !reached && !chosen.has(job.id) && !active; // which `older` begins with
    if (gone || passed) forget(job.id);
    else if (active) load(job.id);
  }
}
