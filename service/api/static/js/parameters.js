/** How many numbers a LoRA layer has, and how many of them are trained, while its sizes are still being chosen. */

import { h, say } from "./dom.js";
import { count, percent } from "./format.js";
import { t } from "./i18n.js";

/** The counts of a layer whose adapter has r(in + out) numbers; null where a size is missing. */
function parametersOf({ inFeatures, outFeatures, rank, bias = true }) {
  if (!(inFeatures > 0 && outFeatures > 0 && rank > 0)) return null;
  const trainable = rank * (inFeatures + outFeatures);
  const frozen = outFeatures * inFeatures + (bias ? outFeatures : 0);
  return { trainable, total: trainable + frozen, share: (100 * trainable) / (trainable + frozen) };
}

/** The counts as a sentence over a bar; `show(sizes)` brings them up to date. */
export function parameterCount() {
  const text = h("p", { class: "fine number", role: "status" });
  const part = h("span", { class: "part" });
  const element = h("div", { class: "parameters" }, text, h("div", { class: "share", "aria-hidden": "true" }, part));
  element.show = (sizes) => {
    const counts = parametersOf(sizes);
    part.style.width = `${counts ? counts.share : 0}%`;
    say(text, counts ? t("try.parameters", { trainable: count(counts.trainable), total: count(counts.total), share: percent(counts.share) }) : "–");
  };
  return element;
}
