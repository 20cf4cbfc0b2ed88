/** The panel that shows what a model's adapter changes: its singular values, its size, its matrices, what it saves. */

import { json } from "./api.js";
import { h, keep, onceAFrame, say } from "./dom.js";
import { count, figure, share } from "./format.js";
import { heatmap } from "./heatmap.js";
import { t } from "./i18n.js";
import { modelChoice, modelOption } from "./model-choice.js";
import { nameOf } from "./models.js";
import { complain } from "./notices.js";
import { spectrum } from "./spectrum.js";
import { get, watch } from "./store.js";

const QUICK = 2 ** 20; // weights of a layer that is looked at without being asked for

export function pictures(root) {
  const models = modelChoice("pictures.model");
  const [layers, beside] = ["layer", "beside"].map((name) => h("select", { label: `pictures.${name}` }));
  const content = h("div", { class: "pictures" });
  const nothing = h("p", { class: "nothing", t: "pictures.none" });
  let [found, shown] = [null, null]; // what was answered, and which question is asked

  const question = () => {
    const model = models.model();
    return model && `/models/${model.id}/analysis?layer=${layers.value || 0}${beside.value ? `&with=${beside.value}` : ""}#${model.version}`;
  };
  const ask = async () => {
    const asked = question();
    if (!asked || asked === shown) return;
    shown = asked;
    try {
      const answer = await json("GET", asked.split("#")[0]);
      if (asked !== shown) return; // another has been asked for
      found = answer;
      draw();
    } catch (error) {
      if (asked !== shown) return;
      shown = null;
      complain(error);
    }
  };
  const draw = onceAFrame(() => {
    const model = models.models().find(({ id }) => id === found?.model_id);
    nothing.hidden = Boolean(model);
    content.hidden = !model;
    if (model) content.replaceChildren(...figures(found, model, Number(layers.value || 0)));
  });
  const list = () => {
    listLayers(layers, models.model());
    listBeside(beside, models.models(), models.model());
  };
  const choose = () => {
    list();
    return ask();
  };
  const follow = async () => {
    await models.follow();
    list();
    const model = models.model();
    if (model && (shown || model.in_features * model.out_features <= QUICK)) ask();
    if (found && !models.models().some(({ id }) => id === found.model_id)) {
      found = null;
      draw();
    }
  };
  models.addEventListener("change", () => {
    layers.value = 0;
    choose();
  });
  for (const one of [layers, beside]) one.addEventListener("change", choose);
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "pictures-title", t: "pictures.title" }), h("div", { class: "tools" }, models, layers, beside)),
    nothing, content);
  watch(["models"], () => follow().catch(complain));
  watch(["theme", "language"], draw);
  watch(["opened"], () => {
    models.take(get("opened"));
    choose();
  });
}

function listLayers(layers, model) {
  const all = model?.layers ?? [];
  layers.hidden = all.length === 0;
  keep(layers, all.map((layer, place) => ({ ...layer, place })), ({ place }) => place, ({ place }) => {
    const element = h("option", { value: place });
    element.show = (layer) => say(element, t("pictures.layerOf", { place: count(place + 1), shape: `${count(layer.in_features)} → ${count(layer.out_features)}` }));
    return element;
  });
}

/** The models on the same base, which can be compared. */
function listBeside(beside, all, model) {
  const others = model?.base_id ? all.filter(({ id, base_id: base }) => base === model.base_id && id !== model.id) : [];
  beside.hidden = others.length === 0;
  keep(beside, [{ id: "" }, ...others], ({ id }) => id, (one) => {
    if (one.id) return modelOption(one);
    return h("option", { value: "", t: "pictures.alone" });
  });
}

/** The figures of an analysis, each with a sentence that says what it shows. */
function figures(found, model, layer) {
  const { A, B, delta } = found.heatmaps;
  const sizes = model.layers?.[layer] ?? model;
  const cards = [
    card("spectrum", [spectrum(found.singular_values, found.energy)], { rank: figure(found.effective_rank, 3), of: count(found.singular_values.length) }, found.energy ? "" : "Nothing"),
    card("norm", [ratio(found)], { share: share(found.relative_norm) }, found.relative_norm === null ? "Nothing" : ""),
    card("saving", [saving(sizes)], savingValues(sizes)),
    found.overlap && card("overlap", [overlap(found.overlap)], { name: nameOf(found.overlap.model_id) }),
  ];
  const maps = h("div", { class: "maps" }, heatmap("A", A), heatmap("B", B), heatmap("ΔW", delta));
  return [h("div", { class: "cards" }, cards.filter(Boolean)), card("maps", [maps], {})];
}

function card(name, content, values, kind = "") {
  return h("section", { class: `picture of-${name}` }, h("h3", { t: `pictures.${name}` }), content, h("p", { class: "fine" }, t(`pictures.${name}${kind}Text`, values)));
}

/** Bars of numbers by name, `most` as wide as there is room. */
function bars(values, said = figure, most = Math.max(...Object.values(values)) || 1) {
  return h("dl", { class: "bars" }, Object.entries(values).flatMap(([name, value]) => {
    const part = h("span", { class: "part" });
    part.style.width = `${(100 * Math.abs(value)) / most}%`;
    return [h("dt", {}, name), h("dd", {}, h("span", { class: "number" }, said(value)), h("span", { class: "share", "aria-hidden": "true" }, part))];
  }));
}

function ratio({ norm, base_norm: base }) {
  return bars({ "‖ΔW‖": norm, "‖W‖": base });
}

function saving({ rank, in_features: inFeatures, out_features: outFeatures }) {
  return bars({ "r · (in + out)": rank * (inFeatures + outFeatures), "in · out": inFeatures * outFeatures }, count);
}

function savingValues({ rank, in_features: inFeatures, out_features: outFeatures }) {
  const [few, all] = [rank * (inFeatures + outFeatures), inFeatures * outFeatures];
  return { rank: count(rank), few: count(few), all: count(all), share: share(few / all) };
}

function overlap({ cosine, input, output }) {
  return bars({ [t("pictures.cosine")]: cosine ?? 0, [t("pictures.input")]: input ?? 0, [t("pictures.output")]: output ?? 0 }, figure, 1);
}
