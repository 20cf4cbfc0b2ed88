/** The table of jobs: how each stands, live, and what may be done about it. */

import { json, secondsSince } from "./api.js";
import { drawn, toggleDrawn } from "./chosen.js";
import { retryCurl } from "./curl.js";
import { h, keep, onceAFrame, say } from "./dom.js";
import { ago, count, duration, figure, moment, shortId } from "./format.js";
import { known, t } from "./i18n.js";
import { icon } from "./icons.js";
import { hasOlder, loadOlder } from "./jobs-feed.js";
import { ACTIVE, inOrder, learn } from "./jobs.js";
import { attempt, copy } from "./notices.js";
import { sparkline } from "./sparkline.js";
import { nameOf } from "./models.js";
import { get, watch } from "./store.js";
import { whileSeen } from "./seen.js";
import { table } from "./tables.js";

const COLUMNS = ["draw", "state", "job", "progress", "curve", "loss", "best", "eta", "started", "took", "actions"];

export function jobsTable(root) {
  const older = h("button", { type: "button", t: "jobs.older", on: { click: () => attempt(older, loadOlder) } });
  const summary = h("p", { class: "fine" });
  const { element, body } = table("jobs", COLUMNS);
  const nothing = h("p", { class: "nothing", t: "jobs.none" });
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "jobs-title", t: "jobs.title" }), summary), nothing, element, older);

  const show = onceAFrame(() => {
    const jobs = inOrder();
    const shown = new Set(drawn());
    nothing.hidden = jobs.length > 0;
    element.hidden = jobs.length === 0;
    older.hidden = !hasOlder();
    say(summary, jobs.length ? t("jobs.shown", { shown: count(jobs.length) }) : "");
    keep(body, jobs, (job) => job.id, row);
    for (const one of body.children) one.draw(shown);
  });
  watch(["jobs", "drawn", "language", "models", "samples"], show);
  whileSeen(1_000, async () => inOrder().some((job) => ACTIVE.includes(job.state)) && show());
}

function row({ id }) {
  const box = h("input", { type: "checkbox", label: "jobs.draw", on: { change: () => toggleDrawn(id, box.checked) } });
  const chip = h("span", { class: "chip" });
  const reason = h("p", { class: "reason" });
  const [name, where] = [h("span", { class: "name" }), h("span", { class: "id" }, shortId(id))];
  const bar = h("progress", { label: "jobs.progress", max: 1, value: 0 });
  const epochs = h("span", { class: "number" });
  const curve = sparkline();
  const [loss, best, eta, started, took] = ["", "", "", "", ""].map(() => h("span", { class: "number" }));
  const buttons = actions(id);
  const cells = [box, [chip, reason], [name, where], [bar, epochs], curve, loss, best, eta, started, took, buttons];
  const element = h("tr", {}, cells.map((cell, place) =>
    h(place === 2 ? "th" : "td", { scope: place === 2 ? "row" : null, class: `of-${COLUMNS[place]}`, "data-label": "" }, cell)));

  element.show = (job) => {
    [...element.children].forEach((cell, place) => (cell.dataset.label = t(`jobs.${COLUMNS[place]}`)));
    element.className = job.state;
    chip.className = `chip ${job.state}`;
    say(chip, t(`state.${job.state}`));
    say(reason, job.state === "failed" ? failure(job) : "");
    say(name, nameOf(job.model_id));
    name.title = `${job.model_id} · ${job.id}`;
    bar.max = job.epochs;
    bar.value = job.epoch;
    say(epochs, `${count(job.epoch)} / ${count(job.epochs)}`);
    curve.draw(job.spark.validation ?? job.spark.losses);
    say(loss, figure(job.metrics.final_loss ?? job.loss));
    say(best, figure(job.best));
    best.title = job.bestEpoch ? t("jobs.bestAt", { epoch: count(job.bestEpoch) }) : "";
    say(eta, remaining(job));
    say(started, ago(job.started_at));
    started.title = moment(job.started_at);
    say(took, duration(job.duration_seconds ?? running(job)));
    buttons.show(job);
  };
  element.draw = (shown) => (box.checked = shown.has(id));
  return element;
}

/** Why a job failed: the word, said in the reader's language where it is known, and the sentence. */
function failure({ reason, detail }) {
  const key = `reason.${reason}`;
  return [known(key) ? t(key) : reason, detail].filter(Boolean).join(": ");
}

function running(job) {
  return job.state === "running" && job.started_at ? Math.max(0, secondsSince(job.started_at)) : null;
}

/** The time that the epochs to come will take, if they take as long as those that were. */
function remaining(job) {
  const seconds = running(job);
  return seconds === null || !job.epoch ? "–" : `~ ${duration(((job.epochs - job.epoch) * seconds) / job.epoch)}`;
}

function actions(id) {
  const button = (name, work) => {
    const made = h("button", { type: "button", class: "quiet", label: `jobs.${name}`, on: { click: () => attempt(made, work) } });
    made.append(icon(name));
    return made;
  };
  const cancel = button("cancel", async () => learn(await json("POST", `/jobs/${id}/cancel`)));
  const again = button("copy", () => copy(retryCurl(get("jobs").get(id))));
  const element = h("span", { class: "actions" }, cancel, again);
  element.show = (job) => {
    cancel.hidden = !ACTIVE.includes(job.state);
    again.hidden = !["failed", "cancelled"].includes(job.state);
  };
  return element;
}
