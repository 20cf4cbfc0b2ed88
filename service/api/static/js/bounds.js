/** What the service takes in the fields of a request, as its own description says. */

import { json } from "./api.js";

let described = null; // the description, asked for once

/** The fields of a request by name, each {kind, least, most, open, length, choices, preset}. */
export async function fieldsOf(request) {
  described ??= json("GET", "/openapi.json").catch((error) => {
    described = null; // so that it is asked for again
    throw error;
  });
  const { schemas } = (await described).components;
  const { properties } = schemas[request];
  return Object.fromEntries(Object.entries(properties).map(([name, property]) => [name, bounds(property, schemas)]));
}

/** The bounds of one property; what may be null has those of what it is otherwise, and a choice those of its name. */
function bounds(property, schemas) {
  const one = property.anyOf?.find((each) => each.type !== "null") ?? property;
  const { type, enum: choices, minimum, exclusiveMinimum, maximum, maxLength } = schemas[one.$ref?.split("/").at(-1)] ?? one;
  return {
    kind: choices ? "choice" : type,
    choices,
    least: minimum ?? exclusiveMinimum,
    open: exclusiveMinimum !== undefined,
    most: maximum,
    length: maxLength,
    preset: property["x-default"],
  };
}
