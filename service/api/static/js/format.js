/** Numbers, sizes and times as people read them, in their language. */

import { secondsSince } from "./api.js";
import { languageNow, t } from "./i18n.js";

const NONE = "–";
const made = new Map();

function formatter(kind, options) {
  const name = `${languageNow()} ${kind.name} ${JSON.stringify(options)}`;
  if (!made.has(name)) made.set(name, new kind(languageNow(), options));
  return made.get(name);
}

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export function count(value) {
  return missing(value) ? NONE : formatter(Intl.NumberFormat, {}).format(value);
}

/** A number to so many significant digits; what is very small or large with a power of ten. */
export function figure(value, digits = 4) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  const notation = size !== 0 && (size < 1e-4 || size >= 1e7) ? "scientific" : "standard";
  return formatter(Intl.NumberFormat, { maximumSignificantDigits: digits, notation }).format(value);
}

export function percent(value) {
  return missing(value) ? NONE : formatter(Intl.NumberFormat, { maximumFractionDigits: 2 }).format(value) + " %";
}

/** A share of one as a percentage, to three digits. */
export function share(part) {
  return missing(part) ? NONE : `${figure(100 * part, 3)} %`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(value) {
  if (missing(value)) return NONE;
  let step = 0;
  while (value >= 1024 && step < UNITS.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${formatter(Intl.NumberFormat, { maximumSignificantDigits: 3 }).format(value)} ${UNITS[step]}`;
}

/** A duration in its two largest units. */
export function duration(seconds) {
  if (missing(seconds)) return NONE;
  if (seconds < 0.9995) return `${figure(seconds * 1000, 3)} ms`;
  if (seconds < 60) return `${figure(seconds, 3)} s`;
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60]];

/** How long ago a moment was, by the clock of the service that named it. */
export function ago(iso) {
  if (!iso) return NONE;
  const seconds = secondsSince(iso);
  const [unit, size] = STEPS.find(([, size]) => seconds >= size) ?? ["second", 1];
  if (unit === "second" && seconds < 10) return t("time.now");
  return formatter(Intl.RelativeTimeFormat, { style: "short" }).format(-Math.floor(seconds / size), unit);
}

export function moment(iso) {
  return iso ? formatter(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso)) : NONE;
}

/** The end of an id, which tells those of one kind apart. */
export function shortId(id) {
  return `…${id.slice(-6)}`;
}
