/** Calls to the service: the one place that knows the key, and how the service says no. */

import { set } from "./store.js";

let key = null; // in memory alone: it ends with the page
let asked = null; // the answer of whoever is asked for a key, while it is waited for
let declined = false;
let ask = async () => null;
let skew = 0;

/** What the service said no with (RFC 9457), or that it could not be reached (status 0). */
export class Problem extends Error {
  constructor(status, body, requestId) {
    super(body.detail ?? body.title ?? "");
    this.status = status;
    this.body = body;
    this.slug = (body.type ?? "").split("/").pop();
    this.requestId = requestId ?? body.request_id ?? null;
  }
}

/** Have `asker` called when the service wants a key; it gives one, or null. */
export function askForKeysBy(asker) {
  ask = asker;
}

export function hasKey() {
  return key !== null;
}

/** Whether the reader is being asked for a key, which holds up the calls that want one. */
export function isAsking() {
  return asked !== null;
}

/** Ask for a key again, after it was declined. */
export function wantKey() {
  declined = false;
  return newKey(key);
}

/** Seconds of the service's clock since a moment that it named. */
export function secondsSince(iso) {
  return (Date.now() + skew - Date.parse(iso)) / 1000;
}

/** The answer to a call; the key is sent, and asked for where the service wants one.
 *
 * Throws Problem for every answer of 400 and above, and where there is none.
 */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  for (;;) {
    const sent = key;
    const answer = await sendOnce(method, path, { body, headers, signal });
    if (answer.status === 401 && (await newKey(sent))) continue;
    if (answer.ok) return answer;
    throw new Problem(answer.status, await bodyOf(answer), answer.headers.get("x-request-id"));
  }
}

/** The JSON that a call is answered with; null where there is none. */
export async function json(method, path, body, options = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  const answer = await call(method, path, { body: text, headers: { ...headers, ...options.headers } });
  return answer.status === 204 ? null : answer.json();
}

async function sendOnce(method, path, { body, headers, signal }) {
  const credentials = key === null ? {} : { Authorization: `Bearer ${key}` };
  try {
    const answer = await fetch(path, { method, body, headers: { ...headers, ...credentials }, signal, cache: "no-store" });
    const date = Date.parse(answer.headers.get("date") ?? "");
    if (!Number.isNaN(date) && Math.abs(date - Date.now() - skew) > 2000) skew = date - Date.now();
    return answer;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, { type: "unreachable" });
  }
}

async function bodyOf(answer) {
  try {
    return await answer.json();
  } catch {
    return { detail: `${answer.status} ${answer.statusText}` };
  }
}

/** Whether there is another key than the one that was refused; all who wait for one wait for the same. */
async function newKey(refused) {
  if (key !== refused) return true;
  if (declined) return false;
  asked ??= ask(refused !== null).finally(() => (asked = null));
  const given = await asked;
  if (given === null) declined = true;
  else key = given;
  set("key", key === null ? "wanted" : "given");
  return given !== null;
}
