/** Words in the reader's language: one table each, with the same keys. */

import en from "./en.js";
import es from "./es.js";
import { set } from "./store.js";

const TABLES = { en, es };
export const LANGUAGES = { en: "English", es: "Español" };
const KEPT = "lora.language";

let language = chosen();
let plurals = new Intl.PluralRules(language);

function chosen() {
  const wanted = [localStorage.getItem(KEPT), ...navigator.languages].map((name) => (name ?? "").slice(0, 2));
  return wanted.find((name) => name in TABLES) ?? "en";
}

export function languageNow() {
  return language;
}

export function chooseLanguage(name) {
  localStorage.setItem(KEPT, name);
  language = name;
  plurals = new Intl.PluralRules(language);
  translate();
  set("language", name);
}

/** The text of a key, with its {values}; a text that depends on a number has a form for each kind of `n`. */
export function t(key, values = {}) {
  const found = TABLES[language][key];
  if (found === undefined) throw new Error(`no text is called ${key}`);
  const text = typeof found === "string" ? found : found[plurals.select(values.n)] ?? found.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Whether there is a text of this key. */
export function known(key) {
  return key in TABLES[language];
}

/** Say again what the whole page says, each element by the keys that it carries. */
export function translate() {
  document.documentElement.lang = language;
  document.querySelectorAll("[data-t], [data-t-label], [data-t-placeholder]").forEach(sayAgain);
}

/** Give an element the texts of its keys: `data-t` its own, `data-t-label` its name, `data-t-placeholder`. */
export function sayAgain(element) {
  const { t: own, tLabel: label, tPlaceholder: placeholder } = element.dataset;
  if (own) element.textContent = t(own);
  if (label) element.setAttribute(element.matches("optgroup") ? "label" : "aria-label", t(label));
  if (label && element.matches("button, a")) element.title = t(label);
  if (placeholder) element.placeholder = t(placeholder);
}
