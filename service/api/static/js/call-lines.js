/** The lines that are equal to a form, in step with it: in tabs, of which the reader's choice is kept, to be copied. */

import { h, say } from "./dom.js";
import { icon } from "./icons.js";
import { linesOf } from "./lines.js";
import { attempt, copy } from "./notices.js";
import { get, set, watch } from "./store.js";
import { tabs } from "./tabs.js";

const KINDS = ["curl", "python", "cli"];
const KEPT = "lora.lines";

/** An element whose `show(call)` writes the lines of a call. */
export function callLines() {
  const codes = Object.fromEntries(KINDS.map((kind) => [kind, h("code", { class: `line-${kind}` })]));
  const panels = Object.fromEntries(KINDS.map((kind) => [kind, panel(codes[kind])]));
  const element = tabs("tabs.label", panels, (kind) => {
    localStorage.setItem(KEPT, kind);
    set("lines", kind);
  });
  const choose = () => element.choose(get("lines") ?? kept());
  element.show = (call) => {
    for (const [kind, line] of Object.entries(linesOf(call))) say(codes[kind], line);
  };
  watch(["lines"], choose);
  choose();
  return element;
}

function kept() {
  const kind = localStorage.getItem(KEPT);
  return KINDS.includes(kind) ? kind : KINDS[0];
}

function panel(code) {
  const button = h("button", { type: "button", class: "quiet", label: "tabs.copy", on: { click: () => attempt(button, () => copy(code.textContent)) } }, icon("copy"));
  return h("div", { class: "lines" }, h("pre", { tabindex: 0, label: "tabs.line", role: "group" }, code), button);
}
