/** What a fresh service shows instead of empty tables: what to do first. */

import { teachButton } from "./digits.js";
import { h } from "./dom.js";
import { drawerButton } from "./drawer.js";
import { t } from "./i18n.js";
import { createModel, train } from "./models.js";
import { attempt, tell } from "./notices.js";
import { get, watch } from "./store.js";

const FIRST_MODEL = { in_features: 64, out_features: 10, name: "first model" };

export function welcome(root) {
  const start = async () => {
    const model = await createModel(FIRST_MODEL);
    await train(model.id);
    tell(t("welcome.started"));
  };
  const button = h("button", { type: "button", class: "primary", t: "welcome.start", on: { click: () => attempt(button, start) } });
  const teaches = teachButton();
  teaches.classList.remove("primary");
  const steps = ["create", "train", "run"].map((step) =>
    h("li", {}, h("h3", { t: `welcome.${step}` }), h("p", { t: `welcome.${step}Text` })));
  root.append(
    h("h2", { id: "welcome-title", t: "welcome.title" }), h("p", { t: "welcome.text" }), h("ol", { class: "steps" }, steps),
    h("div", { class: "answers start" }, button, drawerButton({}), teaches, h("a", { href: "/docs", t: "welcome.docs" })));
  const show = () => {
    const { items, search, cursors, read } = get("models");
    root.hidden = !read || !get("jobs-read") || items.length > 0 || search !== "" || cursors.length > 1 || get("jobs").size > 0;
    document.getElementById("panels").hidden = !root.hidden;
  };
  watch(["models", "jobs", "jobs-read"], show);
}
