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

/** Say what went wrong, until it is closed: the detail, and the id by which the log knows the request. */
export function complain(error) {
  if (!(error instanceof Problem)) throw error;
  const id = error.requestId ? h("p", { class: "fine" }, t("problem.request", { id: error.requestId })) : null;
  show(h("div", {}, h("p", {}, reasonOf(error)), id), "bad");
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

/** Put a text into the clipboard. */
export async function copy(text) {
  await navigator.clipboard.writeText(text);
  tell(t("copied"));
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
