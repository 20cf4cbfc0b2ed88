/** Calls of this page as lines for a shell. */

import { hasKey } from "./api.js";

/** A call as a curl line; a key is named, never shown. */
export function curl(method, path, body) {
  const parts = [`curl -sX ${method} ${quoted(location.origin + path)}`];
  if (hasKey()) parts.push('-H "Authorization: Bearer $LORA_API_KEY"');
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return parts.join(" ");
}

/** The line that starts a job once more, with the settings that it had. */
export function retryCurl(job) {
  return curl("POST", `/models/${job.model_id}/train`, requestOf(job.plan));
}

/** The request that a plan came from; rows that were sent along stand as `[]`, for they are not kept. */
export function requestOf(plan) {
  const asked = given(plan);
  delete asked.path; // which the service chose
  for (const name of ["data", "validation"]) {
    if (asked[name]?.kind !== undefined) asked[name] = sourceOf(asked[name]);
  }
  return asked;
}

function sourceOf(source) {
  if (source.kind === "inline") return { kind: "inline", x: [], y: [] };
  if (source.kind === "dataset") return { kind: "dataset", id: source.id };
  return given(source);
}

function given(settings) {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== null));
}

/** A text as a shell reads it as one word. */
export function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
