/** Four figures at a glance, each with its last quarter of an hour. */

import { h, say } from "./dom.js";
import { bytes, count, duration, figure } from "./format.js";
import { t } from "./i18n.js";
import { KEPT_SECONDS, before, quantile, rise } from "./metrics.js";
import { reasonOf } from "./notices.js";
import { sparkline } from "./sparkline.js";
import { get, watch } from "./store.js";

const MIB = 2 ** 20;
const RATE_SECONDS = 10;
const LATENCY_SECONDS = 60;
const ERROR_SECONDS = 300;
const POINTS = 90;

/** What each tile shows: its figure, the line below it, and the curve; given all samples, of which there is one. */
const TILES = {
  forwards: {
    figure: (samples) => figure(rate(before(samples, RATE_SECONDS), samples.at(-1)), 3),
    line: latency,
    curve: (samples) => steps(samples, rate),
  },
  jobs: {
    figure: (samples) => count(samples.at(-1).running),
    line: (samples) => t("tiles.queued", { queued: count(samples.at(-1).queued), most: count(get("limits")?.queue_max) }),
    curve: (samples) => samples.map((sample) => sample.running + sample.queued),
  },
  memory: {
    figure: (samples) => bytes(samples.at(-1).memory),
    line: (samples) => t("tiles.budget", {
      budget: bytes(get("limits")?.memory_mib * MIB), models: count(samples.at(-1).models), n: samples.at(-1).models,
    }),
    curve: (samples) => samples.map((sample) => sample.memory),
    meter: (samples) => samples.at(-1).memory / (get("limits")?.memory_mib * MIB),
  },
  errors: {
    figure: (samples) => count(lately(samples, "errors") + lately(samples, "refused")),
    line: errors,
    curve: (samples) => steps(samples, (a, b) => rise(a, b, "errors") + rise(a, b, "refused")),
    bad: (samples) => lately(samples, "errors") + lately(samples, "sheds") > 0,
  },
};

export function tiles(root) {
  const all = Object.entries(TILES).map(([name, made]) => tile(name, made));
  root.append(...all);
  const show = () => {
    const problem = get("samples-problem");
    for (const one of all) one.show(get("samples") ?? [], problem);
  };
  watch(["samples", "samples-problem", "limits", "language"], show);
  show();
}

function tile(name, { figure: number, line, curve, meter, bad }) {
  const value = h("p", { class: "value" });
  const text = h("p", { class: "line" });
  const drawn = sparkline();
  const filled = meter && h("progress", { max: 1, value: 0, label: `tiles.${name}` });
  const element = h("div", { class: "panel tile" }, h("h2", { t: `tiles.${name}` }), value, text, filled, drawn);
  element.show = (samples, problem) => {
    element.classList.toggle("stale", Boolean(problem));
    element.classList.toggle("bad", Boolean(samples.length && bad?.(samples)));
    say(value, samples.length ? number(samples) : "–");
    say(text, problem ? reasonOf(problem) : samples.length ? line(samples) : t("tiles.waiting"));
    drawn.draw(placed(samples, curve), 0);
    if (meter && samples.length) filled.value = meter(samples) || 0;
  };
  return element;
}

function rate(earlier, later) {
  const seconds = later.at - earlier.at;
  return seconds > 0 ? rise(earlier, later, "forwards") / seconds : 0;
}

function latency(samples) {
  const [earlier, last] = [before(samples, LATENCY_SECONDS), samples.at(-1)];
  const [half, most] = [0.5, 0.99].map((q) => quantile(earlier, last, q));
  if (half === null) return t("tiles.noForwards");
  return t("tiles.latency", { p50: duration(half), p99: duration(most) });
}

function lately(samples, name) {
  return rise(before(samples, ERROR_SECONDS), samples.at(-1), name);
}

/** Answers of 500 and above, of 400 and above, and sheds; over a shorter time while the page is young. */
function errors(samples) {
  const seconds = Math.min(ERROR_SECONDS, samples.at(-1).at - samples[0].at);
  return t("tiles.ofErrors", {
    errors: count(lately(samples, "errors")), refused: count(lately(samples, "refused")),
    sheds: count(lately(samples, "sheds")), time: duration(Math.max(1, Math.round(seconds))),
  });
}

function steps(samples, between) {
  return samples.map((sample, place) => (place ? between(samples[place - 1], sample) : NaN));
}

/** A curve on the grid of the last quarter of an hour: where nobody looked there is a gap. */
function placed(samples, curve) {
  if (samples.length < 2) return [];
  const grid = Array(POINTS).fill(NaN);
  const now = samples.at(-1).at;
  curve(samples).forEach((value, place) => {
    const at = POINTS - 1 - Math.round(((now - samples[place].at) / KEPT_SECONDS) * (POINTS - 1));
    if (at >= 0 && !(grid[at] > value)) grid[at] = value;
  });
  return grid;
}
