/** The drawer to try the service in: create, train, run, each with the lines that do the same elsewhere.
 *
 * Where there is room it stands beside the page, which stays in use; else it lies above it.
 */

import { fieldsOf } from "./bounds.js";
import { h, keep } from "./dom.js";
import { icon } from "./icons.js";
import { modelOption } from "./model-choice.js";
import { attempt } from "./notices.js";
import { opensModels } from "./opening.js";
import { get, set, watch } from "./store.js";
import { createStep } from "./try-create.js";
import { forwardStep } from "./try-forward.js";
import { trainStep } from "./try-train.js";

const ROOM = matchMedia("(min-width: 1100px)");

let open = async () => {};

/** A button that opens the drawer. */
export function drawerButton(attributes) {
  const button = h("button", { type: "button", t: "try.open", ...attributes, on: { click: () => attempt(button, () => open(null, button)) } });
  return button;
}

export function drawer(root) {
  const close = h("button", { type: "button", class: "quiet", label: "close", on: { click: () => root.close() } }, icon("cancel"));
  const chosen = h("select", { id: "try-model" });
  const content = h("div", { class: "drawer-steps" });
  root.append(h("div", { class: "panel-head" }, h("h2", { id: "drawer-title", tabindex: -1, t: "try.title" }), close),
    h("div", { class: "field" }, h("label", { for: "try-model", t: "try.model" }), chosen), content);
  let [model, steps, opener] = [null, null, null];

  const models = () => {
    const items = get("models").items;
    const all = model && !items.some(({ id }) => id === model.id) ? [model, ...items] : items;
    keep(chosen, [null, ...all], (one) => one?.id ?? "", (one) => (one ? modelOption(one) : h("option", { value: "", t: "try.none" })));
    chosen.value = model?.id ?? "";
  };
  const take = (wanted) => {
    model = wanted;
    models();
    steps?.forward.fill();
    for (const one of Object.values(steps ?? {})) one.show();
  };
  const build = async () => {
    const [creating, training] = await Promise.all([fieldsOf("CreateModelRequest"), fieldsOf("TrainRequest")]);
    steps = { create: await createStep(creating, take), train: trainStep(training, () => model), forward: forwardStep(() => model) };
    content.replaceChildren(...Object.values(steps));
  };
  open = async (wanted, button) => {
    opener = button;
    if (!steps) await build();
    if (wanted) {
      steps.create.fill(wanted);
      for (const one of Object.values(steps)) one.clear();
    }
    steps.create.fold(Boolean(wanted));
    take(wanted ?? model);
    if (!root.open) show(root);
    root.querySelector("h2").focus();
  };
  root.addEventListener("close", () => {
    document.body.classList.remove("docked");
    opener?.focus();
  });
  root.addEventListener("keydown", (event) => event.key === "Escape" && root.close());
  chosen.addEventListener("change", () => take(get("models").items.find(({ id }) => id === chosen.value) ?? null));
  opensModels((wanted, button) => {
    set("opened", wanted);
    return open(wanted, button);
  });
  watch(["models", "language"], () => {
    models();
    for (const one of Object.values(steps ?? {})) one.show();
  });
}

/** Beside the page or above it, as the window has room. */
function show(root) {
  document.body.classList.toggle("docked", ROOM.matches);
  if (ROOM.matches) root.show();
  else root.showModal();
}
