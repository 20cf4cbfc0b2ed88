/** A choice of one model among those of the page that is shown; the one chosen stays when another page is. */

import { h, keep, say } from "./dom.js";
import { shortId } from "./format.js";
import { t } from "./i18n.js";
import { findModel } from "./models.js";
import { get } from "./store.js";

/** A select called by the text `label`, of models that `suits` says yes to.
 *
 * `models()` are those offered, and `model()` the one chosen; `take(model)` chooses one; `follow()` takes up what the
 * page shows now.
 */
export function modelChoice(label, suits = () => true) {
  const element = h("select", { label, on: { change: () => element.take(element.model()) } });
  let [chosen, looked] = [null, null]; // the model, and the page on which it was looked for last
  const isAway = (items) => chosen && !items.some(({ id }) => id === chosen.id);
  const list = () => keep(element, element.models(), ({ id }) => id, modelOption);

  element.models = () => {
    const items = get("models").items.filter(suits);
    return isAway(items) ? [chosen, ...items] : items;
  };
  element.model = () => element.models().find(({ id }) => id === element.value) ?? null;
  element.take = (model) => {
    chosen = model;
    list();
    element.value = model.id;
  };
  element.follow = async () => {
    const { items } = get("models");
    const away = items !== looked && isAway(items) ? chosen : null;
    looked = items;
    if (away) {
      const found = await findModel(away.id);
      if (chosen === away) chosen = found;
    }
    list();
    chosen = element.model();
  };
  return element;
}

/** A model as one of a choice. */
export function modelOption(model) {
  const element = h("option", { value: model.id });
  element.show = (now) => say(element, `${now.name || t("models.unnamed")} ${shortId(now.id)}`);
  return element;
}
