/** A step of the drawer: a form, the lines that are equal to it, and what the service answered. */

import { Problem, call } from "./api.js";
import { callLines } from "./call-lines.js";
import { h } from "./dom.js";
import { duration } from "./format.js";
import { t } from "./i18n.js";
import { reasonOf } from "./notices.js";

/** A step called `name`, with its fields; `more` are folded.
 *
 * `callOf()` is the call that the form stands for, as lines.js has it; `answered(body)` is told the service's answer.
 * `show()` brings the lines up to date, `fold(closed)` opens or closes it.
 */
export function step(name, { fields, more = [], extra = [], callOf, answered }) {
  const lines = callLines();
  const send = h("button", { type: "submit", class: "primary", t: `try.${name}Send` });
  const outcome = h("div", { class: "outcome", role: "status" });
  const folded = more.length ? [h("details", { class: "more" }, h("summary", { t: "try.more" }), h("div", { class: "fields" }, more))] : [];
  const form = h("form", {}, h("p", { class: "fine", t: `try.${name}Text` }), h("div", { class: "fields" }, fields), folded, extra, lines,
    h("div", { class: "answers" }, send), outcome);
  const element = h("details", { class: "step", open: true, id: `try-${name}` }, h("summary", {}, h("h3", { t: `try.${name}` })), form);
  const all = [...fields, ...more];

  const submit = async (event) => {
    event.preventDefault();
    if (send.ariaBusy === "true") return undefined;
    blame(all, []);
    const asked = callOf();
    if (asked.wrong) return refuse(asked.wrong);
    send.ariaBusy = "true";
    const begin = performance.now();
    try {
      const answer = await call(asked.method, asked.path, { body: JSON.stringify(asked.body), headers: { "Content-Type": "application/json" } });
      const body = await answer.json();
      show(outcome, { status: answer.status, id: answer.headers.get("x-request-id"), took: performance.now() - begin, body });
      answered(body, element);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      show(outcome, { status: error.status, id: error.requestId, took: performance.now() - begin, problem: error });
      refuse(error.body.errors ?? []);
    } finally {
      send.ariaBusy = null;
    }
    return undefined;
  };
  const refuse = (faults) => {
    const first = blame(all, faults);
    first?.closest("details.more")?.setAttribute("open", "");
    first?.control.focus();
  };
  form.addEventListener("submit", submit);
  form.addEventListener("input", () => element.show());
  element.show = () => {
    const asked = callOf();
    send.disabled = Boolean(asked.missing);
    if (!asked.wrong) lines.show(asked);
  };
  element.fold = (closed) => (element.open = !closed);
  element.clear = () => outcome.replaceChildren();
  return element;
}

/** Show each fault at the field that its pointer names; the first such field is the answer. */
function blame(fields, faults) {
  const named = (field) => faults.find(({ pointer }) => pointer.split("/")[1] === field.named);
  for (const field of fields) field.blame(named(field)?.detail);
  return fields.find(named);
}

function show(outcome, { status, id, took, body, problem }) {
  const facts = h("p", { class: "fine number" }, [status || null, duration(took / 1000), id && t("problem.request", { id })].filter(Boolean).join(" · "));
  const said = problem
    ? h("p", { class: "fault" }, reasonOf(problem))
    : h("pre", { tabindex: 0, role: "group", label: "try.answer" }, h("code", {}, printed(body)));
  outcome.replaceChildren(facts, said);
}

/** JSON with a line for each field, and rows of numbers on one. */
function printed(body) {
  const rows = [];
  const text = JSON.stringify(body, (_, value) => {
    if (!Array.isArray(value) || value.some((one) => typeof one === "object" && one !== null)) return value;
    rows.push(JSON.stringify(value).replaceAll(",", ", "));
    return `\u0000${rows.length - 1}\u0000`;
  }, 2);
  return text.replace(/"\\u0000(\d+)\\u0000"/g, (_, place) => rows[Number(place)]);
}
