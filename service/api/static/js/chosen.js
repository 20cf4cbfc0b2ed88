/** What the reader chose to see on the chart, kept over a reload. */

import { drawn } from "./jobs.js";
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

/** Draw a job's curve, or no longer. */
export function toggleDrawn(id, on) {
  const chosen = new Set(drawn());
  if (on) chosen.add(id);
  else chosen.delete(id);
  choose(chosen);
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
