/** The step that runs a model on rows that were typed in. */

import { h, say } from "./dom.js";
import { t } from "./i18n.js";
import { step } from "./step.js";

const FEATURES = 64; // of a row where there is no model yet

/** The step; `modelNow()` is the model, or null. `fill()` writes a random row that is right for it. */
export function forwardStep(modelNow) {
  const rows = rowsField();
  const random = h("button", { type: "button", t: "try.random", on: { click: () => fill() } });
  const element = step("forward", {
    fields: [rows], extra: [h("div", {}, random)],
    callOf: () => callOf(modelNow(), rows.control.value),
    answered: () => {},
  });
  const fill = () => {
    rows.write(randomRow(modelNow()?.in_features ?? FEATURES));
    rows.blame();
    element.show();
  };
  element.fill = fill;
  fill();
  return element;
}

function rowsField() {
  const control = h("textarea", { id: "try-rows", rows: 4, spellcheck: "false", "aria-describedby": "try-rows-hint try-rows-fault" });
  const fault = h("span", { class: "fault", id: "try-rows-fault", role: "alert" });
  const element = h("div", { class: "field wide" }, h("label", { for: "try-rows", t: "try.rows" }), control,
    h("span", { class: "fine", id: "try-rows-hint", t: "try.rowsHint" }), fault);
  element.named = "inputs";
  element.control = control;
  element.write = (text) => (control.value = text);
  element.blame = (detail) => {
    say(fault, detail ?? "");
    if (detail) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  return element;
}

/** Numbers N(0, 1), by Box and Muller, to two places. */
function randomRow(length) {
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  return Array.from({ length }, () => normal().toFixed(2)).join(", ");
}

function callOf(model, text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  const rows = lines.map((line) => line.split(/[\s,;]+/).filter(Boolean));
  const strange = rows.flat().find((word) => !Number.isFinite(Number(word)));
  if (strange !== undefined || !rows.length) {
    return { missing: !model, wrong: [{ pointer: "/inputs", detail: t("try.noNumber", { word: (strange ?? "").slice(0, 20) }) }] };
  }
  const inputs = rows.map((row) => row.map(Number));
  const id = model?.id ?? "MODEL";
  return {
    method: "POST", path: `/models/${id}/forward`, body: { inputs }, missing: !model,
    python: { verb: "forward", given: [id, inputs] }, command: ["forward", id, "-"], input: inputs.map((row) => row.join(",")),
  };
}
