/** The dialog that asks for a key; what is typed goes to api.js and nowhere else. */

import { dialog } from "./dialogs.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";

/** A key, or null where the reader gives none; `refused`: the one given before was not taken. */
export function askForKey(refused) {
  const field = h("input", { type: "password", name: "key", required: true, autocomplete: "off", label: "key.field" });
  const body = [h("p", {}, t(refused ? "key.refused" : "key.why")), field];
  return dialog({ title: t("key.title"), body, confirm: "key.confirm", read: () => field.value.trim() });
}
