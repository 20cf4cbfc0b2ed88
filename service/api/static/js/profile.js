/** The panel that tells which rank some data needs: the lowest loss that an adapter of each rank can have. */

import { json } from "./api.js";
import { h, keep, say } from "./dom.js";
import { save } from "./downloads.js";
import { count, figure, shortId } from "./format.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";
import { modelChoice } from "./model-choice.js";
import { nameOf } from "./models.js";
import { attempt, complain } from "./notices.js";
import { WHOLE, axis, fit, picture, seriesColour, sizeOf } from "./plot.js";
import { watch } from "./store.js";
import { colour } from "./theme.js";

// What there is to be learnt, by the key of its name, beside what was uploaded. Classes have no squared error, so digits
// are not among it.
const DATA = {
  teacher: { kind: "teacher", teacher_rank: 2, noise: 0.3, seed: 1 },
  random: { kind: "random", seed: 1 },
};

const QUICK = 2 ** 16; // weights of a layer whose ranks are computed without being asked for

let profileOf = null; // a model that a row asked for

/** Show the ranks of a model. */
export function showProfile(model) {
  profileOf(model);
}

export function rankProfile(root) {
  const models = modelChoice("profile.model", (model) => !model.layers);
  const own = h("optgroup", { label: "profile.uploaded" });
  const generated = Object.keys(DATA).map((name) => h("option", { value: name, t: `profile.${name}` }));
  const data = h("select", { label: "profile.data", on: { focus: () => offers() } }, generated, own);
  const run = h("button", { type: "submit", class: "primary", t: "profile.run" });
  const png = h("button", { type: "button", on: { click: () => attempt(png, keepPicture) } }, icon("export"), "PNG");
  const place = h("div", { class: "plot", hidden: true });
  const text = h("p", { class: "fine", role: "status" });
  const nothing = h("p", { class: "nothing", t: "profile.none" });
  let [chart, found, asked] = [null, null, null];

  const ask = async () => {
    const mine = [models.value, data.value].join();
    if (mine === asked) return;
    asked = mine;
    try {
      const answer = await json("POST", `/models/${models.value}/rank-profile`, { data: sourceOf(data.value, models.model()) });
      if (mine !== asked) return; // another has been asked for
      found = answer;
      draw();
    } catch (error) {
      if (mine === asked) complain(error);
    } finally {
      if (mine === asked) asked = null;
    }
  };
  const draw = () => {
    nothing.hidden = found !== null;
    place.hidden = png.hidden = found === null;
    say(text, found ? summary(found) : "");
    chart?.destroy();
    chart = found && profilePlot(place, found);
  };
  const keepPicture = async () => save(await picture(chart, [{ text: summary(found), stroke: colour("text") }]), `ranks-${found.model_id}.png`);
  profileOf = async (model) => {
    models.take(model);
    root.scrollIntoView({ block: "nearest" });
    await offers();
    return ask();
  };
  const offers = () => offer(own, models.model()).catch(complain);
  let first = true;
  const follow = async () => {
    await models.follow();
    const model = models.model();
    run.disabled = !model;
    if (first && model && model.in_features * model.out_features <= QUICK) ask();
    first = first && !model;
  };
  const form = h("form", { class: "tools" }, models, data, run, png);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "profile-title", t: "profile.title" }), form), nothing, place, text);
  fit(place, () => chart);
  models.addEventListener("change", offers);
  watch(["models", "language"], () => follow().catch(complain));
  watch(["theme", "language"], draw);
  draw();
}

/** Offer what was uploaded and has the shape of a model. */
async function offer(group, model) {
  const { items } = await json("GET", "/datasets?order=desc&limit=50");
  const fit = (one) => one.in_features === model?.in_features && one.out_features === model.out_features;
  keep(group, items.filter(fit), (one) => one.id, (one) =>
    h("option", { value: one.id }, t("profile.rows", { id: shortId(one.id), n: one.n_samples, rows: count(one.n_samples) })));
}

/** The data of a choice; a hidden change is one that the model's layer has room for. */
function sourceOf(choice, model) {
  const data = DATA[choice] ?? { kind: "dataset", id: choice };
  if (data.kind !== "teacher" || !model) return data;
  return { ...data, teacher_rank: Math.min(data.teacher_rank, model.in_features, model.out_features) };
}

/** From which rank on more ranks hardly help, as a sentence: where a hundredth of what can be gained is left. */
function summary({ model_id: id, ranks }) {
  const [first, last] = [ranks[0].loss, ranks.at(-1).loss];
  const enough = ranks.find(({ loss }) => loss - last <= 0.01 * (first - last)) ?? ranks.at(-1);
  return t("profile.summary", {
    name: nameOf(id), rank: count(enough.rank), loss: figure(enough.loss), parameters: count(enough.trainable), first: figure(first),
  });
}

function profilePlot(place, { ranks }) {
  const trainable = new Map(ranks.map((one) => [one.rank, one.trainable]));
  const ticks = (_, at) => at.map((rank) => (trainable.has(rank) ? `${count(rank)}\n${count(trainable.get(rank))}` : ""));
  const stroke = seriesColour(0);
  const options = {
    ...sizeOf(place),
    legend: { show: false },
    scales: { x: { time: false } },
    axes: [{ ...axis(t("profile.axis"), ticks, 46), incrs: WHOLE }, axis(t("chart.loss"), undefined, 62)],
    series: [{}, { stroke, width: 2, fill: colour("series-0-fill"), points: { show: ranks.length < 40, size: 6 } }],
  };
  return new uPlot(options, [ranks.map((one) => one.rank), ranks.map((one) => one.loss)], place);
}
