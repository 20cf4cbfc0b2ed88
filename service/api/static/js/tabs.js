/** Tabs after the pattern of WAI-ARIA: one is in the order of the tab key, and the arrow keys go to the others. */

import { h } from "./dom.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };
let made = 0;

/** Tabs by the names of their texts `tabs.<name>`, each with its panel; `chosen(name)` is told of a choice.
 *
 * `choose(name)` shows one.
 */
export function tabs(label, panels, chosen) {
  const prefix = `tabs-${++made}`;
  const names = Object.keys(panels);
  const buttons = names.map((name) => h("button", {
    type: "button", role: "tab", id: `${prefix}-${name}`, "aria-controls": `${prefix}-${name}-panel`, t: `tabs.${name}`,
    on: { click: () => chosen(name) },
  }));
  const list = h("div", { role: "tablist", label, class: "tablist" }, buttons);
  for (const name of names) {
    const panel = panels[name];
    panel.id = `${prefix}-${name}-panel`;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `${prefix}-${name}`);
  }
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(event.target);
    const ends = { Home: 0, End: names.length - 1 };
    const next = ends[event.key] ?? (at + (STEPS[event.key] ?? 0) + names.length) % names.length;
    if (next === at) return;
    event.preventDefault();
    chosen(names[next]);
    buttons[next].focus();
  });
  const element = h("div", { class: "tabs" }, list, Object.values(panels));
  element.choose = (wanted) => names.forEach((name, place) => {
    buttons[place].setAttribute("aria-selected", String(name === wanted));
    buttons[place].tabIndex = name === wanted ? 0 : -1;
    panels[name].hidden = name !== wanted;
  });
  return element;
}
