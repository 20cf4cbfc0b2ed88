/** A matrix as a picture of colours: blue below zero, orange above, the ground at zero, with its scale and its values. */

import { h, say } from "./dom.js";
import { count, figure } from "./format.js";
import { t } from "./i18n.js";
import { colour } from "./theme.js";

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** The picture called `name` of a matrix of `shape`, from the means of its blocks. */
export function heatmap(name, { shape, values }) {
  const [rows, columns] = [values.length, values[0].length];
  const most = Math.max(...values.flat().map(Math.abs));
  const canvas = h("canvas", { width: columns, height: rows, class: "heat", tabindex: 0, role: "application", "aria-label": inWords(name, shape, values) });
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const readout = h("p", { class: "fine number", role: "status" });
  const scale = h("canvas", { width: 101, height: 1, class: "scale", "aria-hidden": "true" });
  let at = [0, 0];

  const point = (row, column) => {
    at = [Math.min(rows - 1, Math.max(0, row)), Math.min(columns - 1, Math.max(0, column))];
    say(readout, t("pictures.cell", { row: span(at[0], rows, shape[0]), column: span(at[1], columns, shape[1]), value: figure(values[at[0]][at[1]], 3) }));
  };
  canvas.addEventListener("pointermove", ({ offsetX, offsetY }) =>
    point(Math.floor((offsetY / canvas.clientHeight) * rows), Math.floor((offsetX / canvas.clientWidth) * columns)));
  canvas.addEventListener("pointerleave", () => say(readout, whole(shape, rows, columns)));
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    point(at[0] + MOVES[event.key][0], at[1] + MOVES[event.key][1]);
  });
  const paints = painter();
  paint(canvas, values, most, paints);
  paint(scale, [Array.from({ length: 101 }, (_, place) => place / 50 - 1)], 1, paints);
  say(readout, whole(shape, rows, columns));
  return h("figure", { class: "map" }, h("figcaption", {}, h("strong", {}, name), ` ${count(shape[0])} × ${count(shape[1])}`), canvas,
    h("div", { class: "of-scale number" }, h("span", {}, figure(-most || 0, 3)), scale, h("span", {}, figure(most, 3))), readout);
}

/** Rows or columns that a block stands for, counted from 1. */
function span(place, blocks, length) {
  const [first, last] = [Math.floor((place * length) / blocks) + 1, Math.floor(((place + 1) * length) / blocks)];
  return last > first ? `${count(first)}–${count(last)}` : count(first);
}

function whole(shape, rows, columns) {
  return t(rows < shape[0] || columns < shape[1] ? "pictures.blocks" : "pictures.point", { rows: count(rows), columns: count(columns) });
}

function inWords(name, shape, values) {
  const all = values.flat();
  return t("pictures.map", {
    name, rows: count(shape[0]), columns: count(shape[1]), least: figure(Math.min(...all), 3), most: figure(Math.max(...all), 3),
  });
}

/** The colours of now for shares from -1 to 1. */
function painter() {
  const [low, ground, high] = ["low", "ground-zero", "high"].map((name) => colour(name).match(/[\d.]+/g).slice(0, 3).map(Number));
  return (share) => {
    const end = share < 0 ? low : high;
    return ground.map((from, place) => from + (end[place] - from) * Math.abs(share));
  };
}

function paint(canvas, values, most, colourOf) {
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(canvas.width, canvas.height);
  values.flat().forEach((value, place) => image.data.set([...colourOf(most ? value / most : 0), 255], place * 4));
  pen.putImageData(image, 0, 0);
}
