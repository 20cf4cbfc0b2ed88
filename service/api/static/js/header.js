/** The header: how the service is, what it is, and how the reader wants the page. */

import { secondsSince, wantKey } from "./api.js";
import { h, say } from "./dom.js";
import { drawerButton } from "./drawer.js";
import { duration } from "./format.js";
import { LANGUAGES, chooseLanguage, known, languageNow, t } from "./i18n.js";
import { icon } from "./icons.js";
import { reasonOf } from "./notices.js";
import { get, watch } from "./store.js";
import { reconnectNow } from "./stream.js";
import { THEMES, chooseTheme, theme } from "./theme.js";

export function header(root) {
  const dot = h("span", { class: "dot" });
  const health = h("span", { class: "health", role: "status" });
  const facts = h("span", { class: "facts" });
  const stream = h("button", { type: "button", class: "stream", on: { click: reconnectNow } });
  const streamText = h("span");
  stream.append(h("span", { class: "dot" }), streamText);
  const key = h("button", { type: "button", class: "quiet", label: "key.enter", on: { click: wantKey } }, icon("key"));
  const banner = h("div", { class: "banner", role: "alert", hidden: true });
  root.append(
    h("div", { class: "bar" },
      h("a", { class: "brand", href: "/" }, logo(), h("span", {}, "lora-service")),
      h("span", { class: "state" }, dot, health), facts, h("span", { role: "status" }, stream),
      h("span", { class: "choices" }, drawerButton({ class: "primary" }), key, languages(), themes())),
    banner);

  const show = () => {
    const { state = "unknown", checks = {} } = get("health") ?? {};
    dot.className = `dot ${state}`;
    say(health, healthText(state, checks));
    say(facts, factsText());
    const { state: streaming = "connecting", seconds, why } = get("stream") ?? {};
    stream.className = `stream ${streaming}`;
    stream.disabled = streaming !== "waiting";
    stream.title = why ? reasonOf(why) : "";
    say(streamText, t(`stream.${streaming}`, { seconds }));
    key.hidden = get("key") !== "wanted";
    const warning = known(`banner.${state}`);
    banner.hidden = !warning;
    say(banner, warning ? t(`banner.${state}`) : "");
  };
  watch(["health", "facts", "durable", "stream", "language", "key"], show);
  show();
}

/** The state, and by name each check that fails. */
function healthText(state, checks) {
  const failing = Object.entries(checks).filter(([, found]) => found && found !== "ok");
  const named = failing.map(([name, found]) => `${name}: ${found}`).join(", ");
  return t(`health.${state}`) + (named && state === "not-ready" ? ` (${named})` : "");
}

function factsText() {
  const { version, device, started } = get("facts") ?? {};
  if (!version) return "";
  const up = started ? t("header.up", { time: duration(Math.max(1, secondsSince(started))) }) : null;
  const durable = get("durable");
  const mode = durable === undefined ? null : t(durable ? "header.durable" : "header.memory");
  return [`v${version}`, device, mode, up].filter(Boolean).join(" · ");
}

function languages() {
  const choose = (event) => chooseLanguage(event.target.value);
  const options = Object.entries(LANGUAGES).map(([name, text]) =>
    h("option", { value: name, selected: name === languageNow(), lang: name }, text));
  return h("select", { label: "header.language", on: { change: choose } }, options);
}

function themes() {
  const choose = (event) => chooseTheme(event.target.value);
  const options = THEMES.map((name) => h("option", { value: name, selected: name === theme(), t: `theme.${name}` }));
  return h("select", { label: "header.theme", on: { change: choose } }, options);
}

function logo() {
  return h("img", { src: "/static/favicon.svg", alt: "", width: 22, height: 22 });
}
