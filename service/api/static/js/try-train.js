/** The step that trains a model. */

import { toggleDrawn } from "./chosen.js";
import { h, say } from "./dom.js";
import { field, given } from "./fields.js";
import { count, figure } from "./format.js";
import { t } from "./i18n.js";
import { learn } from "./jobs.js";
import { options } from "./lines.js";
import { step } from "./step.js";
import { get, watch } from "./store.js";

// What there is to learn from without rows of one's own, and the loss that its targets are for.
const LOSS_OF = { random: "mse", teacher: "mse", digits: "cross_entropy" };
const SHOWN = { epochs: {}, lr: { value: 0.01 }, optimizer: {}, batch_size: {} };

/** The step, from the fields that the service takes; `modelNow()` is the model, or null. */
export function trainStep(known, modelNow) {
  const data = field("data", {}, { choices: Object.keys(LOSS_OF).map((kind) => ({ value: kind, t: `data.${kind}` })), value: "random" });
  const loss = field("loss", known.loss);
  const fields = Object.entries(SHOWN).map(([name, more]) => field(name, known[name], { always: name === "epochs", ...more }));
  const seed = field("seed", known.seed);
  const progress = trainingProgress();
  // Before the form hears of it, which then shows both.
  data.control.addEventListener("input", () => loss.write(LOSS_OF[data.control.value]));

  return step("train", {
    fields: [data, loss, ...fields], more: [seed],
    callOf: () => callOf(modelNow(), data.control.value, given([...fields, loss, seed])),
    answered: (job, element) => {
      learn(job);
      if (get("drawn")) toggleDrawn(job.id, true);
      element.querySelector(".outcome").prepend(progress);
      progress.follow(job.id);
    },
  });
}

function callOf(model, kind, plan) {
  const id = model?.id ?? "MODEL";
  const body = { ...plan, data: { kind } };
  return {
    method: "POST", path: `/models/${id}/train`, body, missing: !model,
    python: { verb: "train", given: [id], named: body }, command: ["train", id, "--data", kind, ...options(plan), "--follow"],
  };
}

/** The job that was started last, as it goes on: on a phone the drawer covers the table. */
function trainingProgress() {
  const bar = h("progress", { label: "jobs.progress", max: 1, value: 0 });
  const text = h("p", { class: "number" });
  const element = h("div", {}, text, bar);
  let id = null;
  const show = () => {
    const job = get("jobs").get(id);
    if (!job) return;
    bar.max = job.epochs;
    bar.value = job.epoch;
    say(text, [t(`state.${job.state}`), `${count(job.epoch)} / ${count(job.epochs)}`, job.loss !== null && `${t("chart.loss")} ${figure(job.loss)}`].filter(Boolean).join(" · "));
  };
  element.follow = (job) => {
    id = job;
    show();
  };
  watch(["jobs", "language"], show);
  return element;
}
