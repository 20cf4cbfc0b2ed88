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
  translate(document);
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

/** Say again what the elements within say, each by the key that it carries. */
export function translate(within) {
  document.documentElement.lang = language;
  for (const element of within.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of within.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
    if (element.matches("button, a")) element.title = t(element.dataset.tLabel);
  }
  for (const element of within.querySelectorAll("[data-t-placeholder]")) {
    element.placeholder = t(element.dataset.tPlaceholder);
  }
}
