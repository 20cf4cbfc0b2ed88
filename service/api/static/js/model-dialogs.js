/** What is asked before a model is deleted, or its files are taken. */

import { dialog } from "./dialogs.js";
import { h } from "./dom.js";
import { download } from "./downloads.js";
import { shortId } from "./format.js";
import { t } from "./i18n.js";
import { deleteModel } from "./models.js";
import { tell } from "./notices.js";

/** Delete a model, if the reader means it; where a job is active, that is to be cancelled first. */
export async function deletes(model, training) {
  const name = model.name || shortId(model.id);
  const force = h("input", { type: "checkbox", name: "force", required: true });
  const body = [h("p", {}, t("delete.sure", { name })), training && h("label", {}, force, h("span", { t: "delete.force" }))];
  const sure = await dialog({ title: t("delete.title"), body: body.filter(Boolean), confirm: "delete.confirm", danger: true });
  if (!sure) return;
  await deleteModel(model.id, training);
  document.querySelector("#models .scroller").focus({ preventScroll: true }); // for the row that had the focus goes
  tell(t("delete.done", { name }));
}

const FILES = {
  config: ["adapter/adapter_config.json", "adapter_config.json"],
  adapter: ["adapter/adapter_model.safetensors", "adapter_model.safetensors"],
  weights: ["weights", "weights.safetensors"],
  merged: ["merged", "merged.safetensors"],
};
const PEFT = ["config", "adapter"];

/** Take files of a model: by default the two that PEFT reads. */
export async function exports(model) {
  const choices = Object.entries(FILES).map(([name, [, file]]) =>
    h("label", {}, h("input", { type: "checkbox", name, checked: PEFT.includes(name) }), h("span", {}, h("code", {}, file), " ", t(`export.${name}`))));
  const read = (form) => Object.keys(FILES).filter((name) => form.elements[name].checked);
  const title = t("export.title", { name: model.name || shortId(model.id) });
  const wanted = await dialog({ title, body: [h("fieldset", {}, choices)], confirm: "export.confirm", read });
  for (const name of wanted ?? []) {
    const [path, file] = FILES[name];
    await download(`/models/${model.id}/${path}`, PEFT.includes(name) ? file : `${model.id}.${file}`);
  }
}
