/** The panel of losses: which jobs are drawn and how, what the pointer is at, and the same as a table. */

import { chooseDrawing, drawNewest, drawn, toggleDrawn } from "./chosen.js";
import { best, thinned, POINTS } from "./curve.js";
import { curve } from "./curves.js";
import { h, keep, onceAFrame, say } from "./dom.js";
import { download, save } from "./downloads.js";
import { count, figure, shortId } from "./format.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";
import { broken, columns, lossPlot, valuesAt } from "./loss-plot.js";
import { nameOf } from "./models.js";
import { attempt } from "./notices.js";
import { SERIES, fit, picture, seriesColour, sizeOf } from "./plot.js";
import { get, watch } from "./store.js";

const NO_CURVE = { epochs: [], losses: [], validation: null, whole: 0 };

export function lossChart(root) {
  const parts = { place: h("div", { class: "plot", tabindex: 0, role: "group", label: "chart.place" }), readout: h("ul", { class: "readout" }),
    note: h("p", { class: "fine", role: "status" }), nothing: h("p", { class: "nothing" }), spoken: h("p", { class: "hidden-text", role: "status" }), values: valuesTable(),
    whole: h("button", { type: "button", t: "chart.whole", on: { click: () => events.zoomed(null) } }) };
  let [chart, data, shown, built, zoom, framed] = [null, [], [], null, null, null]; // `framed`: the jobs that `zoom` is of

  const events = {
    current: () => shown,
    pointed: () => readOut(),
    zoomed: (range) => {
      zoom = range;
      if (!range) chart.setData(data, true);
      show();
    },
  };
  const readOut = () => {
    const index = chart?.cursor.idx ?? data[0]?.length - 1;
    keep(parts.readout, shown.map((one, at) => ({ ...one, at, values: data.length > 1 ? valuesAt(data, at, index) : null })), ({ job }) => job.id, entry);
  };
  const show = onceAFrame(() => {
    shown = drawn().slice(-SERIES).map((id) => ({ job: get("jobs").get(id), curve: curve(id) ?? NO_CURVE })).filter(({ job }) => job);
    const drawing = get("drawing");
    const thin = shown.map(({ job, curve: whole }) => ({ job, curve: thinned(whole, POINTS) }));
    data = columns(thin, drawing);
    parts.nothing.hidden = shown.length > 0;
    parts.place.hidden = parts.readout.hidden = parts.values.hidden = shown.length === 0;
    const ids = shown.map(({ job }) => job.id).join();
    if (ids !== framed) [framed, zoom] = [ids, null];
    parts.whole.hidden = zoom === null;
    say(parts.nothing, t(get("jobs").size ? "chart.unticked" : "chart.none"));
    const wanted = JSON.stringify([shown.map(({ job }) => job.id), drawing.log, drawing.smoothing > 0, get("theme"), get("language")]);
    if (wanted !== built) {
      chart?.destroy();
      chart = shown.length ? lossPlot(parts.place, sizeOf(parts.place), data, shown, drawing, events) : null;
      parts.place.chart = chart; // as elements of a page carry what they show
      built = wanted;
    }
    if (chart) bring(chart, data, zoom);
    say(parts.note, thinNote(thin));
    readOut();
    parts.values.show(shown);
  });
  parts.place.addEventListener("keydown", (event) => {
    if (chart && point(chart, event)) say(parts.spoken, inWords(shown, data, chart.cursor.idx));
  });
  root.append(head(parts.whole, () => chart, () => shown), parts.nothing, parts.place, parts.spoken, parts.readout, parts.note, parts.values);
  fit(parts.place, () => chart);
  watch(["jobs", "drawn", "drawing", "theme", "language", "models"], show);
  show();
}

/** New data; a frame that the reader drew stays. */
function bring(chart, data, zoom) {
  chart.setData(data, zoom === null);
  if (zoom) chart.setScale("x", { min: zoom[0], max: zoom[1] });
}

const KEYS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };

/** Point at the epochs before and after by the keyboard; whether the key was one for that. */
function point(chart, event) {
  if (!(event.key in KEYS)) return false;
  event.preventDefault();
  const last = chart.data[0].length - 1;
  const index = Math.min(last, Math.max(0, (chart.cursor.idx ?? last) + KEYS[event.key]));
  chart.setCursor({ left: chart.valToPos(chart.data[0][index], "x"), top: chart.over.clientHeight / 2 });
  return true;
}

/** What the curves have at a place, for who hears it. */
function inWords(shown, data, index) {
  const values = shown.map(({ job }, at) => [nameOf(job.model_id), valuesAt(data, at, index)]);
  return values.filter(([, now]) => now).map(([name, now]) => `${name}: ${described(now)}`).join("; ");
}

function head(whole, chartNow, shownNow) {
  const log = h("input", { type: "checkbox", on: { change: () => chooseDrawing({ log: log.checked }) } });
  const smoothing = h("input", { type: "range", min: 0, max: 0.95, step: 0.05, on: { input: () => chooseDrawing({ smoothing: Number(smoothing.value) }) } });
  const amount = h("output", { class: "number" });
  const newest = h("button", { type: "button", t: "chart.newest", on: { click: drawNewest } });
  const csv = h("button", { type: "button", on: { click: () => attempt(csv, () => tables(shownNow())) } }, icon("export"), "CSV");
  const png = h("button", { type: "button", on: { click: () => attempt(png, () => keepPicture(chartNow(), shownNow())) } }, icon("export"), "PNG");
  const show = () => {
    const { log: logarithmic, smoothing: weight } = get("drawing");
    log.checked = logarithmic;
    smoothing.value = weight;
    say(amount, figure(weight, 2));
    newest.hidden = !get("drawn");
    csv.disabled = png.disabled = drawn().length === 0;
  };
  watch(["drawing", "drawn", "jobs", "language"], show);
  show();
  return h("div", { class: "panel-head" }, h("h2", { id: "chart-title", t: "chart.title" }),
    h("div", { class: "tools" }, whole, newest, h("label", {}, log, h("span", { t: "chart.log" })),
      h("label", {}, h("span", { t: "chart.smoothing" }), smoothing, amount), csv, png));
}

async function tables(shown) {
  for (const { job } of shown) await download(`/jobs/${job.id}/losses.csv`, `${job.id}.csv`);
}

async function keepPicture(chart, shown) {
  const lines = shown.map(({ job }, at) => ({ text: `${nameOf(job.model_id)} · ${job.id}`, stroke: seriesColour(at) }));
  save(await picture(chart, lines), `losses-${shown[0].job.id}.png`);
}

/** One line of the legend: whose curve it is, and its values where the pointer is, or at its end. */
function entry({ job: { id } }) {
  const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
  const name = h("span", { class: "name" });
  const values = h("span", { class: "number" });
  const close = h("button", { type: "button", class: "quiet", label: "chart.remove", on: { click: () => toggleDrawn(id, false) } }, icon("cancel"));
  const element = h("li", {}, swatch, name, h("span", { class: "id" }, shortId(id)), values, close);
  element.show = ({ job, at, values: now }) => {
    swatch.className = `swatch series-${at % SERIES}`;
    say(name, nameOf(job.model_id));
    close.hidden = !get("drawn");
    say(values, now ? described(now) : t(`state.${job.state}`));
  };
  return element;
}

function described({ epoch, loss, smooth, validation }) {
  const parts = [t("chart.at", { epoch: count(epoch), loss: loss === null ? t("chart.noNumber") : figure(loss, 5) })];
  if (smooth !== null) parts.push(t("chart.smoothed", { loss: figure(smooth, 5) }));
  if (validation !== null) parts.push(t("chart.validation", { loss: figure(validation, 5) }));
  return parts.join(" · ");
}

function thinNote(shown) {
  return shown
    .filter(({ curve: { epochs, whole } }) => epochs.length < whole)
    .map(({ job, curve: { epochs, whole } }) => t("chart.thinned", { id: shortId(job.id), shown: count(epochs.length), all: count(whole) }))
    .join(" ");
}

const FACTS = ["job", "state", "epochs", "first", "best", "last", "optimum"];

/** The curves in words, for who does not see them. */
function valuesTable() {
  const body = h("tbody");
  const heads = FACTS.map((fact) => h("th", { scope: "col", t: `chart.of.${fact}` }));
  const element = h("details", {}, h("summary", { t: "chart.asTable" }),
    h("div", { class: "scroller" }, h("table", {}, h("caption", { class: "hidden-text", t: "chart.asTable" }), h("thead", {}, h("tr", {}, heads)), body)));
  element.show = (shown) => keep(body, shown, ({ job }) => job.id, () => {
    const cells = FACTS.map((_, place) => h(place ? "td" : "th", { scope: place ? null : "row" }));
    const row = h("tr", {}, cells);
    row.show = (one) => facts(one).forEach((text, place) => say(cells[place], text));
    return row;
  });
  return element;
}

function facts({ job, curve: known }) {
  const { epochs, losses, validation } = known;
  const place = best(known);
  const lowest = place < 0 ? "–" : t("chart.at", { epoch: count(epochs[place]), loss: figure((validation ?? losses)[place]) });
  const gone = broken(job, known).map((epoch) => t("chart.notFinite", { epoch })).join(", ");
  return [`${nameOf(job.model_id)} ${shortId(job.id)}`, t(`state.${job.state}`), `${count(job.epoch)} / ${count(job.epochs)}`,
    figure(losses[0]), lowest, gone || figure(losses.at(-1)), figure(job.metrics.optimum_loss)];
}
