/** What the reader chose to see on the chart, kept over a reload. */

import { isLoading } from "./curves.js";
import { newestBegun, recordOf } from "./jobs.js";
import { SERIES } from "./plot.js";
import { get, set } from "./store.js";

const KEPT = "lora.chart";
const FIRST = { ids: null, log: false, smoothing: 0 };

/** Take up what was chosen before the page was loaded anew. */
export function restoreChosen() {
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    // What cannot be read is as if it were not there.
  }
  const { ids, log, smoothing } = { ...FIRST, ...kept };
  set("drawn", ids && new Set(ids));
  set("drawing", { log, smoothing });
}

/** The jobs whose curves are on the chart: those chosen, or the newest that has begun. */
export function drawn() {
  const chosen = get("drawn");
  if (chosen) return [...chosen].filter((id) => recordOf(id) || isLoading(id));
  const newest = newestBegun();
  return newest ? [newest.id] : [];
}

/** Draw a job's curve, or no longer; where there are as many as there are colours, the first makes room. */
export function toggleDrawn(id, on) {
  const others = drawn().filter((one) => one !== id);
  choose(new Set(on ? [...others, id].slice(-SERIES) : others));
}

/** Draw the newest job, whichever that will be. */
export function drawNewest() {
  choose(null);
}

export function chooseDrawing(change) {
  set("drawing", { ...get("drawing"), ...change });
  keep();
}

function choose(ids) {
  set("drawn", ids);
  keep();
}

function keep() {
  const ids = get("drawn");
  sessionStorage.setItem(KEPT, JSON.stringify({ ids: ids && [...ids], ...get("drawing") }));
}
