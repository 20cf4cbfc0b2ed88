/** The jobs that the page knows: a record of each, with its curve in a few points. */

import { append, best, curveOf, thinned } from "./curve.js";
import { set } from "./store.js";

export const ACTIVE = ["queued", "running"];
export const SPARK_POINTS = 40;

const jobs = new Map(); // id to the service's record with `spark`, the thinned curve

/** Say that jobs have changed. */
export function changed() {
  set("jobs", jobs);
}

/** The record of a job, where it is known. */
export function recordOf(id) {
  return jobs.get(id);
}

/** The jobs in the order in which they are shown: those that run, then the newest first. */
export function inOrder() {
  const running = (job) => (job.state === "running" ? 1 : 0);
  return [...jobs.values()].sort((a, b) => running(b) - running(a) || (a.id < b.id ? 1 : -1));
}

/** The job whose curve is worth a look where nobody chose any: the newest that has begun. */
export function newestBegun() {
  const newest = [...jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  return newest.find((job) => job.epoch > 0 || job.state === "running") ?? newest[0];
}

/** Jobs that a call was answered with. */
export function learn(...answers) {
  answers.forEach(take);
  changed();
}

export function forget(id) {
  jobs.delete(id);
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

/** Take in another state of a job, as the stream tells it. */
export function hearState({ job_id: id, state, reason }) {
  const job = jobs.get(id);
  if (job && ACTIVE.includes(job.state)) jobs.set(id, { ...job, state, reason });
}

/** Take in an epoch of a job, as the stream tells it; whether it was a later one. */
export function hearEpoch(event) {
  const job = jobs.get(event.job_id);
  if (event.epoch <= job.epoch) return false;
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
  return true;
}
