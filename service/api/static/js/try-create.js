/** The step that creates a model. */

import { json } from "./api.js";
import { h } from "./dom.js";
import { field, given } from "./fields.js";
import { count, shortId } from "./format.js";
import { options } from "./lines.js";
import { refreshModels } from "./models.js";
import { complain } from "./notices.js";
import { parameterCount } from "./parameters.js";
import { step } from "./step.js";

const FIRST = { in_features: 64, out_features: 10, rank: 4 };
const FRESH = { value: "", t: "try.fresh" };

/** The step, from the fields that the service takes; `made(model)` is told of a model. `fill(model)` copies one. */
export async function createStep(known, made) {
  const { items: bases } = await json("GET", "/bases?limit=100&order=desc");
  const sizes = Object.entries(FIRST).map(([name, value]) => field(name, known[name], { value, always: true }));
  const more = ["name", "alpha", "init", "seed"].map((name) => field(name, known[name]));
  const base = field("base_id", known.base_id, { choices: [FRESH, ...bases.map(baseChoice)] });
  const named = Object.fromEntries([...sizes, ...more, base].map((one) => [one.named, one]));
  const counts = parameterCount();

  const settings = () => given([named.name, ...sizes, named.alpha, named.init, base, named.seed]);
  const element = step("create", {
    fields: [...sizes, named.name], more: [named.alpha, named.init, base, named.seed], extra: [counts],
    callOf: () => callOf(settings()),
    answered: (model) => {
      know(model);
      made(model);
      refreshModels({ search: "", order: "desc", cursors: [null] }).catch(complain);
    },
  });
  const know = ({ base_id: id, in_features, out_features, bias }) => {
    if (!id || bases.some((one) => one.id === id)) return;
    bases.push({ id, in_features, out_features, bias });
    base.control.append(h("option", { value: id }, baseChoice(bases.at(-1)).text));
  };
  const showCall = element.show;
  element.show = () => {
    const chosen = bases.find(({ id }) => id === base.control.value);
    for (const name of ["in_features", "out_features"]) {
      named[name].control.disabled = Boolean(chosen);
      if (chosen) named[name].write(chosen[name]);
    }
    const numberIn = (name) => Number(named[name].control.value);
    counts.show({ inFeatures: numberIn("in_features"), outFeatures: numberIn("out_features"), rank: numberIn("rank"), bias: chosen?.bias });
    showCall();
  };
  element.fill = (model) => {
    know(model);
    for (const one of Object.values(named)) one.write(one.named === "base_id" ? "" : model[one.named]);
    element.show();
  };
  return element;
}

function baseChoice({ id, in_features: inFeatures, out_features: outFeatures }) {
  return { value: id, text: `${count(inFeatures)} → ${count(outFeatures)} ${shortId(id)}` };
}

function callOf(body) {
  return { method: "POST", path: "/models", body, python: { verb: "create", named: body }, command: ["create", ...options(body)] };
}
