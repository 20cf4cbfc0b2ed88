/** Adapters of rank 1, 2, 4 and 8 on one frozen layer that learn to read digits: found, made, trained, asked. */

import { json } from "./api.js";
import { inOrder } from "./jobs.js";
import { refreshModels, train } from "./models.js";

export const RANKS = [1, 2, 4, 8];
const MARK = { panel: "digits" }; // by which they are found again; `lora demo` sets it too
const LAYER = { in_features: 64, out_features: 10 };
const PLAN = {
  epochs: 30, batch_size: 64, optimizer: "adam", lr: 0.01, loss: "cross_entropy", seed: 0,
  data: { kind: "digits", split: "train" }, validation: { kind: "digits", split: "test" },
};
const MOST = 200; // models that are looked through

/** The newest model of each rank that carries the mark; those that are not there are left out. */
export async function findReaders() {
  const { items } = await json("GET", `/models?limit=${MOST}&order=desc&search=digits`);
  const marked = items.filter(({ metadata }) => metadata.panel === MARK.panel);
  return RANKS.map((rank) => marked.find((model) => model.rank === rank)).filter(Boolean);
}

/** Make those that are missing, on the base of the others, and train all that have learnt nothing yet. */
export async function teachReaders() {
  const readers = await findReaders();
  for (const rank of RANKS.filter((one) => !readers.some((model) => model.rank === one))) {
    const layer = readers.length ? { base_id: readers[0].base_id } : LAYER;
    readers.push(await json("POST", "/models", { ...layer, rank, seed: 0, name: `digits, rank ${rank}`, metadata: MARK }));
  }
  for (const model of readers) {
    if (model.version === 0 && !jobOf(model)) await train(model.id, PLAN);
  }
  await refreshModels();
}

/** The newest job of a model that has not failed, among those that the page knows. */
export function jobOf({ id }) {
  return inOrder().find((job) => job.model_id === id && !["failed", "cancelled"].includes(job.state));
}

/** What each reader says of an image: its ten scores as shares, and the version that answered. */
export async function read(readers, values) {
  const items = readers.map(({ id }) => ({ model_id: id, inputs: [values] }));
  const { items: answers } = await json("POST", "/forward", { items });
  return answers.map(({ outputs, model_version: version }) => ({ shares: softmax(outputs[0]), version }));
}

function softmax(scores) {
  const most = Math.max(...scores);
  const parts = scores.map((score) => Math.exp(score - most));
  const sum = parts.reduce((total, part) => total + part, 0);
  return parts.map((part) => part / sum);
}
