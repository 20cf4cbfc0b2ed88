/** The panel that reads a drawn digit: adapters of several ranks answer side by side while it is drawn. */

import { h, keep, onceAFrame, say } from "./dom.js";
import { count, share } from "./format.js";
import { t } from "./i18n.js";
import { ACTIVE } from "./jobs.js";
import { attempt, complain } from "./notices.js";
import { pad } from "./pad.js";
import { RANKS, findReaders, jobOf, read, teachReaders } from "./readers.js";
import { sample } from "./samples.js";
import { get, watch } from "./store.js";

const CLASSES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

export function digits(root) {
  const surface = pad(() => ask());
  const teach = teachButton(() => look());
  const clear = h("button", { type: "button", t: "digits.clear", on: { click: surface.clear } });
  const cards = h("ul", { class: "readers" });
  const spoken = h("p", { class: "hidden-text", role: "status" });
  const note = h("p", { class: "fine" });
  let [readers, answers, examples, busy, again, looked] = [[], [], 0, false, false, null];

  const example = h("button", { type: "button", t: "digits.example", on: { click: () => surface.load(sample(examples++ % CLASSES.length)) } });
  const ready = () => readers.filter(({ version }) => version > 0);
  const ask = async () => {
    again = busy;
    if (busy) return;
    const asked = ready();
    if (!asked.length || !surface.values().some(Boolean)) {
      answers = [];
      return show();
    }
    busy = true;
    try {
      const said = await read(asked, surface.values());
      answers = asked.map((model, place) => ({ id: model.id, ...said[place] }));
    } catch (error) {
      if (error.status === 404) look();
      else complain(error);
    } finally {
      busy = false;
    }
    show();
    return again && ask();
  };
  const look = async () => {
    readers = await findReaders();
    show();
    ask();
  };
  const show = onceAFrame(() => {
    const shown = readers.map((model) => ({ model, job: jobOf(model), answer: answers.find(({ id }) => id === model.id) }));
    keep(cards, shown, ({ model }) => model.id, reader);
    teach.hidden = readers.length === RANKS.length && shown.every(({ model, job }) => model.version > 0 || job);
    say(note, t(teach.hidden ? "digits.text" : "digits.none"));
    const best = shown.filter(({ answer }) => answer).at(-1);
    say(spoken, best ? t("digits.reads", { rank: count(best.model.rank), digit: answerOf(best.answer), share: share(Math.max(...best.answer.shares)) }) : "");
  });
  const lookWhenChanged = onceAFrame(() => {
    const models = get("models").items.map(({ id, version }) => [id, version]);
    const key = JSON.stringify([models, readers.map((model) => jobOf(model)?.state)]);
    if (!get("models").read || key === looked) return;
    looked = key;
    look().catch(complain);
  });
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "digits-title", t: "digits.title" }), h("div", { class: "tools" }, teach, example, clear)),
    note, h("div", { class: "reading" }, surface, cards), h("p", { class: "fine", id: "digits-keys", t: "digits.keys" }), spoken);
  watch(["models", "jobs"], lookWhenChanged);
  watch(["jobs", "language"], show);
  show();
}

/** A button that makes the adapters and trains them; `taught()` is called when their training has been started. */
export function teachButton(taught = () => {}) {
  const teach = () => teachReaders().then(taught);
  const button = h("button", { type: "button", class: "primary teach", t: "digits.teach", on: { click: () => attempt(button, teach) } });
  return button;
}

const answerOf = ({ shares }) => shares.indexOf(Math.max(...shares));

/** The card of one adapter: how it is being trained, or what it reads. */
function reader() {
  const [rank, facts, answer, sure] = ["h3", "p", "p", "p"].map((tag) => h(tag, { class: "number" }));
  facts.classList.add("fine");
  const bar = h("progress", { label: "jobs.progress", max: 1, value: 0 });
  const parts = CLASSES.map(() => h("span", { class: "part" }));
  const shares = CLASSES.map((digit) => h("li", {}, h("span", { class: "column", "aria-hidden": "true" }, parts[digit]), h("span", {}, String(digit))));
  const list = h("ol", { class: "scores", start: 0, "aria-hidden": "true" }, shares);
  answer.className = "answer number";
  sure.classList.add("fine");
  const element = h("li", { class: "reader" }, rank, h("div", { class: "said" }, answer, sure), list, bar, facts);
  element.show = ({ model, job, answer: said }) => {
    const training = job && ACTIVE.includes(job.state);
    say(rank, t("digits.rank", { rank: count(model.rank) }));
    say(answer, said ? String(answerOf(said)) : "·");
    say(sure, said ? share(Math.max(...said.shares)) : " ");
    CLASSES.forEach((digit) => {
      parts[digit].style.height = `${said ? 100 * said.shares[digit] : 0}%`;
      shares[digit].className = said && answerOf(said) === digit ? "best" : "";
    });
    bar.hidden = !training;
    bar.max = job?.epochs ?? 1;
    bar.value = job?.epoch ?? 0;
    say(facts, factsOf(model, job, training, said));
  };
  return element;
}

function factsOf(model, job, training, said) {
  if (training) return t("digits.training", { epoch: count(job.epoch), epochs: count(job.epochs) });
  const accuracy = job?.metrics.validation_accuracy;
  return [
    t("digits.parameters", { n: model.parameters.trainable, count: count(model.parameters.trainable) }),
    t("digits.version", { version: count(said?.version ?? model.version) }),
    typeof accuracy === "number" && t("digits.accuracy", { share: share(accuracy) }),
  ].filter(Boolean).join(" · ");
}
