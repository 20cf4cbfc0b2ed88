/** What the page has to say: short notices, read out as they come. */

import { Problem } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { t } from "./i18n.js";

const SECONDS = 6;

/** Say that something was done. */
export function tell(text) {
  show(h("p", {}, text), "good", SECONDS);
}

/** Say what went wrong, until it is closed: the detail, and the id by which the log knows the request.
 *
 * Throws what is no Problem once it is said, for it is a fault of the page, which the console tells in full.
 */
export function complain(error) {
  const id = error.requestId ? h("p", { class: "fine" }, t("problem.request", { id: error.requestId })) : null;
  const reason = reasonOf(error);
  const last = document.getElementById("notices").lastElementChild;
  if (last?.querySelector("p").textContent === reason) last.remove(); // the same once more
  show(h("div", {}, h("p", {}, reason), id), "bad");
  if (!(error instanceof Problem)) throw error;
}

/** Why a call was not answered, as a sentence. */
export function reasonOf(error) {
  return error.status === 0 ? t("problem.unreachable") : error.message || t("problem.status", { status: error.status });
}

/** Do what a button is for, once at a time, and say what goes wrong. It stays enabled, so that it keeps the focus. */
export async function attempt(button, work) {
  if (button.ariaBusy === "true") return undefined;
  button.ariaBusy = "true";
  try {
    return await work();
  } catch (error) {
    complain(error);
    return undefined;
  } finally {
    button.ariaBusy = null;
  }
}

/** Put a text into the clipboard; where the page may not, as over plain HTTP from another host, show it instead. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    tell(t("copied"));
  } catch {
    show(h("div", {}, h("p", {}, t("copyByHand")), h("code", { class: "by-hand" }, text)), "good");
  }
}

function show(content, kind, seconds) {
  const close = h("button", { type: "button", class: "quiet", label: "close", on: { click: () => notice.remove() } });
  close.append(icon("cancel"));
  const notice = h("div", { class: `notice-card ${kind}` }, content, close);
  const notices = document.getElementById("notices");
  const place = document.querySelector("#drawer:modal") ?? document.body; // what is outside a modal dialog is behind it
  if (notices.parentElement !== place) place.append(notices);
  notices.append(notice);
  if (seconds) setTimeout(() => notice.remove(), seconds * 1000);
}
