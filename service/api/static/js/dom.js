/** Make elements, and keep lists of them; what is given as text stays text. */

import { sayAgain } from "./i18n.js";

/** An element with attributes and children.
 *
 * `t`, `label` and `placeholder` are keys of texts, said anew when the language changes; `on` has listeners by event.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) give(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  sayAgain(element);
  return element;
}

const KEYS = { t: "data-t", label: "data-t-label", placeholder: "data-t-placeholder" };

function give(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name === "on") {
    for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
  } else {
    element.setAttribute(KEYS[name] ?? name, value === true ? "" : value);
  }
}

/** Change a text only where it is another, so that nothing is laid out or announced for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Give a parent one child for each item, in their order; what was there for an item stays, with its focus.
 *
 * `make(item)` is an element whose `show(item)` brings it up to date.
 */
export function keep(parent, items, keyOf, make) {
  const before = (parent.kept ??= new Map());
  const after = new Map(items.map((item) => [keyOf(item), null]));
  for (const [key, element] of before) {
    if (!after.has(key)) element.remove(); // first, so that nothing after it has to be moved
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const element = before.get(key) ?? make(item);
    after.set(key, element);
    element.show?.(item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  parent.kept = after;
}

/** Let the work of many calls be done by one, at the next frame, or soon where nothing is painted. */
export function onceAFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    const run = () => {
      waiting = false;
      work();
    };
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}
