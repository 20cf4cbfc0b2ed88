/** The table of models: what there is, and what may be done with each. */

import { h, keep, onceAFrame, say } from "./dom.js";
import { deletes, exports } from "./model-dialogs.js";
import { ago, bytes, count, figure, moment, percent, shortId } from "./format.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";
import { earlierModels, isTraining, nextModels, orderModels, searchModels, sparkOf, train } from "./models.js";
import { attempt, complain, copy, tell } from "./notices.js";
import { canOpen, openModel } from "./opening.js";
import { showProfile } from "./profile.js";
import { sparkline } from "./sparkline.js";
import { get, watch } from "./store.js";
import { table } from "./tables.js";

const COLUMNS = ["model", "shape", "rank", "parameters", "bytes", "version", "loss", "state", "created", "actions"];
// By what the rows of a page can be sorted; `created` is the service's own order, over all pages.
const SORTS = {
  model: (model) => model.name ?? "",
  shape: (model) => model.in_features * model.out_features,
  rank: (model) => model.rank ?? 0,
  parameters: (model) => model.parameters.trainable,
  bytes: (model) => model.bytes,
  version: (model) => model.version,
  loss: (model) => model.last_loss ?? Infinity,
};
const SEARCH_MS = 250;

let sorting = null; // {column, descending}; null: as the service lists them

export function modelsTable(root) {
  const { element, body, heads } = table("models", COLUMNS, sorters(() => show()));
  const nothing = h("p", { class: "nothing" });
  const where = h("p", { class: "fine" });
  const [earlier, later] = [["models.earlier", earlierModels], ["models.later", nextModels]].map(([key, work]) => {
    const button = h("button", { type: "button", t: key, on: { click: () => attempt(button, work).then(show) } });
    return button;
  });
  const pages = h("div", { class: "pages" }, earlier, where, later);
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "models-title", t: "models.title" }), searching()), nothing, element, pages);

  const show = onceAFrame(() => {
    const { items, next, cursors, search, read } = get("models");
    nothing.hidden = items.length > 0;
    element.hidden = items.length === 0;
    say(nothing, t(!read ? "models.reading" : search ? "models.notFound" : "models.none"));
    keep(body, sorted(items), (model) => model.id, row);
    mark(heads);
    earlier.disabled = cursors.length < 2;
    later.disabled = !next;
    const ended = [earlier, later].find((button) => button.disabled && button === document.activeElement);
    if (ended) (ended === earlier ? later : earlier).focus(); // which a button that is disabled loses
    pages.hidden = cursors.length < 2 && !next;
    const total = search ? null : get("samples")?.at(-1)?.models;
    say(where, t(total ? "models.pageOf" : "models.page", { page: count(cursors.length), total: count(total) })
      + (sorting ? ` · ${t("models.sortedHere")}` : ""));
  });
  watch(["models", "jobs", "language", "samples"], show);
  show();
}

function searching() {
  let timer = null;
  const search = () => {
    const wanted = field.value.trim();
    clearTimeout(timer);
    timer = setTimeout(() => searchModels(wanted).catch(complain), SEARCH_MS);
  };
  const field = h("input", { type: "search", label: "models.search", placeholder: "models.search", maxlength: 256, on: { input: search } });
  watch(["models"], () => {
    if (field !== document.activeElement) field.value = get("models").search;
  });
  return field;
}

/** What each head does: once up, once down, and then as the service lists them; `created` turns that round. */
function sorters(show) {
  const by = (column) => () => {
    sorting = sorting?.column !== column ? { column, descending: false } : sorting.descending ? null : { column, descending: true };
    show();
  };
  const created = () => {
    sorting = null;
    orderModels(get("models").order === "desc" ? "asc" : "desc").catch(complain);
  };
  return { ...Object.fromEntries(Object.keys(SORTS).map((column) => [column, by(column)])), created };
}

function sorted(items) {
  if (!sorting) return items;
  const value = SORTS[sorting.column];
  const compare = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0);
  return [...items].sort((a, b) => (sorting.descending ? compare(b, a) : compare(a, b)));
}

function mark(heads) {
  const { column, descending } = sorting ?? { column: "created", descending: get("models").order === "desc" };
  for (const [name, head] of Object.entries(heads)) {
    if (name === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function row({ id }) {
  const name = h("span", { class: "name" });
  const copyId = h("button", { type: "button", class: "id", label: "models.copyId", on: { click: () => copy(id).catch(complain) } }, shortId(id), icon("copy"));
  const curve = sparkline();
  const loss = h("span", { class: "number" });
  const chip = h("span", { class: "chip" });
  const texts = Object.fromEntries(["shape", "rank", "parameters", "bytes", "version", "created"].map((column) => [column, h("span", { class: "number" })]));
  const buttons = actions(id);
  const content = { model: [name, copyId], ...texts, loss: [curve, loss], state: chip, actions: buttons };
  const element = h("tr", {}, COLUMNS.map((column) =>
    h(column === "model" ? "th" : "td", { scope: column === "model" ? "row" : null, class: `of-${column}` }, content[column])));

  element.show = (model) => {
    [...element.children].forEach((cell, place) => (cell.dataset.label = t(`models.${COLUMNS[place]}`)));
    say(name, model.name || t("models.unnamed"));
    name.classList.toggle("unnamed", !model.name);
    name.title = Object.entries(model.metadata).map((pair) => pair.join(": ")).join("\n");
    say(texts.shape, `${count(model.in_features)} → ${count(model.out_features)}`);
    say(texts.rank, (model.layers ?? [model]).map(({ rank, alpha }) => `${count(rank)} / ${figure(alpha, 3)}`).join(" · "));
    const { trainable, total, trainable_percent: share } = model.parameters;
    say(texts.parameters, `${count(trainable)} / ${count(total)} (${percent(share)})`);
    say(texts.bytes, bytes(model.bytes));
    say(texts.version, count(model.version));
    const spark = sparkOf(model);
    curve.draw(spark ? spark.losses : []);
    say(loss, figure(model.last_loss));
    const training = isTraining(id);
    chip.className = `chip ${training ? "running" : "idle"}`;
    say(chip, t(training ? "models.training" : "models.idle"));
    say(texts.created, ago(model.created_at));
    texts.created.title = moment(model.created_at);
    buttons.show(model);
  };
  return element;
}

function actions(id) {
  let model = null;
  const button = (name, work) => {
    const made = h("button", { type: "button", class: "quiet", label: `models.${name}`, on: { click: () => attempt(made, () => work(made)) } });
    made.append(icon(name));
    return made;
  };
  const trains = async () => {
    await train(id);
    tell(t("models.trained", { name: model.name || shortId(id) }));
  };
  const opens = button("open", (made) => openModel(model, made));
  const profiles = button("profile", () => showProfile(model));
  const element = h("span", { class: "actions" },
    button("train", trains), opens, profiles,
    button("export", () => exports(model)), button("delete", () => deletes(model, isTraining(id))));
  element.show = (now) => {
    model = now;
    opens.hidden = !canOpen();
    profiles.hidden = Boolean(now.layers);
  };
  return element;
}
