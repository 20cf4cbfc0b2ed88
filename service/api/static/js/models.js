/** The models that the page knows: a page of them at a time, as the reader asked for it. */

import { json } from "./api.js";
import { curveOf, thinned } from "./curve.js";
import { shortId } from "./format.js";
import { ACTIVE, inOrder, learn } from "./jobs.js";
import { complain } from "./notices.js";
import { get, set, watch } from "./store.js";

const PAGE = 25;
const SPARK_POINTS = 40;
const REFRESH_MS = 500;

const sparks = new Map(); // model and version to the curve of its newest job
const asked = new Set();
const names = new Map(); // of models that were seen

/** Read the first page, and read it again when a job has begun or ended, were it between two looks, when there are more
 * models or fewer, and when the service is there again. */
export function followModels() {
  set("models", { ...question, items: [], next: null, read: false });
  let before = "";
  watch(["jobs", "samples"], () => {
    const states = [...(get("jobs")?.values() ?? [])].map(({ id, state }) => id + state);
    const now = [get("samples")?.at(-1)?.models, ...states].join();
    if (now !== before) refreshSoon();
    before = now;
  });
  watch(["stream"], () => get("stream").state === "live" && refreshSoon());
  return refreshModels();
}

let timer = null;

function refreshSoon() {
  timer ??= setTimeout(() => {
    timer = null;
    refreshModels().catch(complain);
  }, REFRESH_MS);
}

function activeModels() {
  return [...get("jobs").values()].filter((job) => ACTIVE.includes(job.state)).map((job) => job.model_id);
}

let turn = 0;
let question = { search: "", order: "desc", cursors: [null] }; // asked last; what `models` holds was answered last

/** Read the page that is asked for anew, or another one. */
export async function refreshModels(change = {}) {
  const wanted = (question = { ...question, ...change });
  const mine = ++turn;
  try {
    const page = await json("GET", `/models?${queryOf(wanted)}`);
    if (mine !== turn) return; // a later question has been asked
    if (!page.items.length && wanted.cursors.length > 1) {
      await refreshModels({ cursors: wanted.cursors.slice(0, -1) }); // the last of its page is gone
      return;
    }
    for (const { id, name } of page.items) names.set(id, name);
    set("models", { ...wanted, items: page.items, next: page.next_cursor, read: true });
  } catch (error) {
    const { search, order, cursors } = get("models");
    if (mine === turn) question = { search, order, cursors };
    throw error;
  }
}

function queryOf({ search, order, cursors }) {
  const query = new URLSearchParams({ limit: PAGE, order });
  if (search) query.set("search", search);
  if (cursors.at(-1)) query.set("cursor", cursors.at(-1));
  return query;
}

export const searchModels = (search) => refreshModels({ search, cursors: [null] });
export const orderModels = (order) => refreshModels({ order, cursors: [null] });
export const nextModels = () => refreshModels({ cursors: [...get("models").cursors, get("models").next] });
export const earlierModels = () => refreshModels({ cursors: get("models").cursors.slice(0, -1) });

/** Create a model, and have it shown. */
export async function createModel(settings) {
  const model = await json("POST", "/models", settings);
  await refreshModels({ search: "", order: "desc", cursors: [null] });
  return model;
}

/** Train a model, by default with the service's own defaults. */
export async function train(id, plan = {}) {
  const job = await json("POST", `/models/${id}/train`, plan);
  learn(job);
  return job;
}

export async function deleteModel(id, force) {
  await json("DELETE", `/models/${id}${force ? "?force=true" : ""}`);
  await refreshModels();
}

export function isTraining(id) {
  return activeModels().includes(id);
}

/** What people call a model: its name, or the end of its id; asked for where its page is not the one shown. */
export function nameOf(id) {
  if (!names.has(id)) askName(id).catch(complain);
  return names.get(id) || shortId(id);
}

async function askName(id) {
  names.set(id, null);
  names.set(id, (await findModel(id))?.name ?? null);
  set("models", get("models"));
}

/** A model on whatever page it is listed; null where it is gone. */
export async function findModel(id) {
  const { items } = await json("GET", `/models?limit=1&search=${id}`); // which finds none without an error
  return items[0] ?? null;
}

/** The thinned curve of a model's newest job; asked for where no job that is known tells it. */
export function sparkOf(model) {
  const job = inOrder().find((one) => one.model_id === model.id && one.epoch > 0);
  const key = `${model.id} ${model.version}`;
  if (!job && model.last_loss !== null && !asked.has(key)) ask(model.id, key);
  return job?.spark ?? sparks.get(key) ?? null;
}

async function ask(id, key) {
  asked.add(key);
  const page = await json("GET", `/jobs?model_id=${id}&order=desc&limit=1&points=${SPARK_POINTS}`);
  if (page.items.length) sparks.set(key, thinned(curveOf(page.items[0]), SPARK_POINTS));
  set("models", get("models"));
}
