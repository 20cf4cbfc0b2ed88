/** Tables with a caption, named columns, and buttons on those that can be sorted by. */

import { h } from "./dom.js";

/** A table whose columns are named by `${name}.${column}`; the one that scrolls by itself where it is too wide. */
export function table(name, columns, sortable = {}) {
  const heads = columns.map((column) => {
    const text = { t: `${name}.${column}` };
    const sort = sortable[column];
    const content = sort ? h("button", { type: "button", class: "sort", ...text, on: { click: sort } }) : h("span", text);
    return h("th", { scope: "col", class: `of-${column}` }, content);
  });
  const body = h("tbody");
  const caption = h("caption", { class: "hidden-text", t: `${name}.caption` });
  const element = h("div", { class: "scroller", tabindex: 0, role: "region", "aria-labelledby": `${name}-title` },
    h("table", { class: name }, caption, h("thead", {}, h("tr", {}, heads)), body));
  return { element, body, heads: Object.fromEntries(columns.map((column, place) => [column, heads[place]])) };
}
