/** The fields of a form: each has its label, the bounds of the service, and what the service found wrong with it. */

import { h, say } from "./dom.js";
import { count } from "./format.js";
import { t } from "./i18n.js";
import { watch } from "./store.js";

let made = 0;

/** A field of a request called `name`, from what `fieldsOf` knows of it.
 *
 * `read()` is its value, undefined where it is left to the service; `write(value)` fills it in; `blame(detail)` shows
 * what is wrong. `always`: also what the service would take by itself is sent.
 */
export function field(name, bounds, { always = false, value, choices } = {}) {
  const id = `field-${++made}`;
  const known = { ...bounds, choices: choices ?? bounds.choices };
  const control = known.choices ? choice(id, name, known) : input(id, name, known);
  const [hint, fault] = [h("span", { class: "fine", id: `${id}-hint` }), h("span", { class: "fault", id: `${id}-fault`, role: "alert" })];
  const element = h("div", { class: "field" }, h("label", { for: id, t: `field.${name}` }), control, hint, fault);
  control.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);

  element.named = name;
  element.control = control;
  element.read = () => {
    const given = valueOf(control, known.kind);
    return always || given !== known.preset ? given : undefined;
  };
  element.write = (given) => (control.value = given ?? "");
  element.blame = (detail) => {
    say(fault, detail ?? "");
    if (detail) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  const show = () => say(hint, hintOf(known));
  watch(["language"], show);
  show();
  element.write(value ?? known.preset);
  return element;
}

/** What the fields say, by their names; what is left to the service is left out. */
export function given(fields) {
  return Object.fromEntries(fields.map((one) => [one.named, one.read()]).filter(([, value]) => value !== undefined));
}

function input(id, name, { kind, least, open, most, length }) {
  const isText = kind === "string";
  return h("input", {
    id, name, type: isText ? "text" : "number", autocomplete: "off", spellcheck: "false", maxlength: length,
    step: isText ? null : kind === "integer" ? 1 : "any", max: most, min: open ? null : least,
  });
}

function choice(id, name, { choices }) {
  const options = choices.map((one) => h("option", typeof one === "string" ? { value: one } : { value: one.value, t: one.t }, typeof one === "string" ? one : one.text));
  return h("select", { id, name }, options);
}

function valueOf(control, kind) {
  if (control.value === "" || control.disabled) return undefined;
  return kind === "integer" || kind === "number" ? Number(control.value) : control.value;
}

/** What numbers may be, in words; a bound that nobody meets is left out. */
function hintOf({ kind, least, open, most }) {
  if ((kind !== "integer" && kind !== "number") || least === undefined || most > 1e12) return "";
  return t(open ? "field.above" : "field.between", { least: count(least), most: count(most) });
}
