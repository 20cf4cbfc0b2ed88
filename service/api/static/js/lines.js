/** A call of this page as others would make it: with curl, in Python, and by the command `lora`. */

import { hasKey } from "./api.js";
import { curl, quoted } from "./curl.js";

const USUAL = ["http://127.0.0.1:8000", "http://localhost:8000"]; // where the command looks unless told otherwise
// Options of the command that are shorter than the names of what they set.
const OPTIONS = { in_features: "--in", out_features: "--out", base_id: "--base" };

/** The lines of a call by the name of who makes it.
 *
 * A call is {method, path, body}, `python` with {verb, given, named} and `command`, the words after `lora`, with `input`
 * for what it reads.
 */
export function linesOf(call) {
  return { curl: curl(call.method, call.path, call.body), python: python(call.python), cli: command(call) };
}

/** Settings as options of the command `lora`. */
export function options(settings) {
  return Object.entries(settings).flatMap(([name, value]) => [OPTIONS[name] ?? `--${name.replaceAll("_", "-")}`, String(value)]);
}

function python({ verb, given = [], named = {} }) {
  const values = [...given.map(literal), ...Object.entries(named).map(([name, value]) => `${name}=${literal(value)}`)];
  const key = hasKey() ? ', api_key=os.environ["LORA_API_KEY"]' : "";
  return [
    ...(key ? ["import os", ""] : []),
    "from service.client import Client", "",
    `client = Client(${literal(location.origin)}${key})`,
    `print(client.${verb}(${values.join(", ")}))`,
  ].join("\n");
}

/** A value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, one]) => `${literal(name)}: ${literal(one)}`).join(", ")}}`;
}

function command({ command: words, input }) {
  const place = USUAL.includes(location.origin) ? [] : ["--url", location.origin];
  const line = `lora ${[...words, ...place].map(word).join(" ")}`; // which finds LORA_API_KEY by itself
  return input === undefined ? line : `printf '%s\\n' ${input.map(quoted).join(" ")} | ${line}`;
}

/** A word as a shell reads it, in quotes only where it needs them. */
function word(text) {
  return /^[\w./:=,@%+-]+$/.test(text) ? text : quoted(text);
}
