/** The singular values of a change as bars, and the share of its energy that the first of them keep as a line. */

import { h } from "./dom.js";
import { count, figure, share } from "./format.js";
import { t } from "./i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT] = [360, 170, 38, 40, 10, 20];
const TOLD = 8; // values that are told in words

/** A figure of singular values, from the largest, and the energies that they add up to, or null. */
export function spectrum(values, energy) {
  const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spectrum", role: "img", "aria-label": inWords(values, energy) });
  const [width, height] = [WIDTH - LEFT - RIGHT, HEIGHT - TOP - FOOT];
  const most = values[0] || 1;
  const each = width / values.length;
  const x = (place) => LEFT + each * (place + 0.5);
  for (const part of [0, 0.5, 1]) {
    const y = TOP + height * (1 - part);
    svg.append(made("line", { class: "grid", x1: LEFT, x2: LEFT + width, y1: y, y2: y }),
      text(LEFT - 5, y + 3, "end", figure(most * part, 3)), text(LEFT + width + 5, y + 3, "start", share(part)));
  }
  values.forEach((value, place) => {
    const bar = made("rect", { class: "bar-of", x: x(place) - each * 0.36, width: each * 0.72, y: TOP + height * (1 - value / most), height: (height * value) / most });
    bar.append(made("title", {}, told(values, energy, place)));
    svg.append(bar);
    if (values.length <= 16 || place % Math.ceil(values.length / 16) === 0) svg.append(text(x(place), HEIGHT - 6, "middle", count(place + 1)));
  });
  if (energy) {
    const points = energy.map((share, place) => [x(place), TOP + height * (1 - share)]);
    svg.append(made("polyline", { class: "energy", points: points.map((point) => point.join(",")).join(" ") }));
    if (points.length <= 32) svg.append(...points.map(([cx, cy]) => made("circle", { class: "energy", cx, cy, r: 2.6 })));
  }
  return h("div", {}, svg, legend());
}

function legend() {
  const entry = (name) => h("span", {}, h("span", { class: `swatch of-${name}`, "aria-hidden": "true" }), h("span", { t: `pictures.${name}` }));
  return h("p", { class: "fine legend" }, entry("sigma"), entry("energy"));
}

function told(values, energy, place) {
  const value = figure(values[place], 4);
  return t(energy ? "pictures.valueAndEnergy" : "pictures.value", { place: count(place + 1), value, share: energy && share(energy[place]) });
}

function inWords(values, energy) {
  const some = values.slice(0, TOLD).map((_, place) => told(values, energy, place));
  return `${t("pictures.spectrum")}: ${some.join("; ")}${values.length > TOLD ? "; …" : ""}`;
}

function text(x, y, anchor, content) {
  return made("text", { x, y, "text-anchor": anchor }, content);
}

function made(tag, attributes, content) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content) element.textContent = content;
  return element;
}
