/** Questions that must be answered first: modal dialogs, which give the focus back where it was. */

import { h } from "./dom.js";

/** Show a dialog and wait for its answer: what `read` makes of it, or null where it was left.
 *
 * `title` is a text; `body` are elements; `confirm` is the key of the text on the button; `danger` makes that red.
 */
export function dialog({ title, body, confirm, danger = false, read = () => true }) {
  return new Promise((resolve) => {
    const heading = h("h2", { id: "dialog-title" }, title);
    const yes = h("button", { type: "submit", class: danger ? "danger" : "primary", t: confirm });
    const no = h("button", { type: "button", t: "cancel", on: { click: () => element.close() } });
    const form = h("form", { method: "dialog" }, heading, body, h("div", { class: "answers" }, no, yes));
    const element = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    const before = document.activeElement;
    let answer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer = read(form);
      element.close();
    });
    element.addEventListener("close", () => {
      element.remove();
      before?.focus?.();
      resolve(answer);
    });
    document.body.append(element);
    element.showModal();
    (form.querySelector("input, select") ?? yes).focus();
  });
}
