/** The way from a row to whatever shows one model at length: it registers itself, and rows offer it from then on. */

let opener = null;

/** Have `open(model, returnFocusTo)` called when a reader opens a model. */
export function opensModels(open) {
  opener = open;
}

export function canOpen() {
  return opener !== null;
}

/** Open a model; the focus goes back to `button`. */
export function openModel(model, button) {
  return opener?.(model, button);
}
