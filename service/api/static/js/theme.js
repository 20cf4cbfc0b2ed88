/** The theme: as the system has it, dark, or light; the choice is kept. */

import { set } from "./store.js";

export const THEMES = ["auto", "dark", "light"];
const KEPT = "lora.theme";

export function theme() {
  const kept = localStorage.getItem(KEPT);
  return THEMES.includes(kept) ? kept : "auto";
}

export function chooseTheme(name) {
  localStorage.setItem(KEPT, name);
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  set("theme", name);
}

/** Tell whoever draws on a canvas when the system changes its mind. */
export function followSystem() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => set("theme", theme()));
}

const probe = document.createElement("span");
probe.hidden = true;

/** A custom property of the stylesheet as a colour that a canvas takes, in the theme of now. */
export function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
