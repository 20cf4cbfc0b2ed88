/** The curves of the jobs that are drawn: asked for once, and longer with each epoch that the stream tells. */

import { json } from "./api.js";
import { POINTS, append, curveOf, thinned } from "./curve.js";
import { changed, forget, learn, recordOf } from "./jobs.js";
import { complain } from "./notices.js";

const RETRY_MS = 5_000;

const curves = new Map(); // id to the curve of a job
const loading = new Set();
const missing = new Set(); // ids of which the service knows no job

/** The curve of a job, where it is known; else it is asked for, and `jobs` changes when it has come. */
export function curve(id) {
  if (!curves.has(id)) load(id);
  return curves.get(id);
}

export function isLoading(id) {
  return loading.has(id);
}

/** Ask for a job with its curve, unless that is under way. */
export async function load(id) {
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
  curves.delete(id);
  forget(id);
  changed();
}

/** Say why there is no answer, and have it asked for again after a while. */
async function later(error) {
  if (error.status !== 401 && error.status !== 0) complain(error);
  await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  changed();
}

/** Take in the next epoch of a job; where some are lost between, the curve is asked for anew. */
export function extend({ job_id: id, ...epoch }) {
  const known = curves.get(id);
  if (!known) return;
  if (!append(known, epoch)) load(id);
  if (known.epochs.length > 2 * POINTS) curves.set(id, thinned(known, POINTS));
}

/** Bring the curves in line with the records: of jobs that were chosen and are not known, and of those further on. */
export function catchUp(chosen) {
  for (const id of chosen) {
    if (!recordOf(id) && !missing.has(id)) load(id);
  }
  for (const [id, known] of curves) {
    const job = recordOf(id);
    if (!job && !loading.has(id)) curves.delete(id);
    else if (job && (known.epochs.at(-1) ?? 0) < job.epoch) load(id);
  }
}
