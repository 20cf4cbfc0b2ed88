/** What the service takes in the fields of a request, as its own description says. */

import { json } from "./api.js";

let described = null; // the description, asked for once

/** The fields of a request by name, each {kind, least, most, open, length, choices, preset}. */
export async function fieldsOf(request) {
  described ??= json("GET", "/openapi.json").catch((error) => {
    described = null; // so that it is asked for again
    throw error;
  });
  const { properties } = (await described).components.schemas[request];
  return Object.fromEntries(Object.entries(properties).map(([name, property]) => [name, bounds(property)]));
}

/** The bounds of one property; what may be null has those of what it is otherwise. */
function bounds(property) {
  const { type, enum: choices, minimum, exclusiveMinimum, maximum, maxLength } =
    property.anyOf?.find((one) => one.type !== "null") ?? property;
  return {
    kind: choices ? "choice" : type,
    choices,
    least: minimum ?? exclusiveMinimum,
    open: exclusiveMinimum !== undefined,
    most: maximum,
    length: maxLength,
    preset: property.default ?? undefined,
  };
}
