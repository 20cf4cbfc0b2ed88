/** A square to draw on with mouse, finger or pen, and by keyboard on its grid of 8×8. */

import { SIDE, reduced } from "./bitmap.js";
import { h, onceAFrame, say } from "./dom.js";
import { t } from "./i18n.js";
import { watch } from "./store.js";
import { colour } from "./theme.js";

const SIZE = 320; // of the drawing, whatever its size on the screen
const PEN = 26;
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** The pad and its picture in 8×8; `drawn(values)` is told of each change. `clear()` empties, `load(values)` fills it. */
export function pad(drawn) {
  const canvas = h("canvas", { class: "pad", width: SIZE, height: SIZE, tabindex: 0, role: "application", label: "digits.pad", "aria-describedby": "digits-keys" });
  const preview = h("canvas", { class: "preview", width: SIDE, height: SIDE, "aria-hidden": "true" });
  const cell = h("p", { class: "hidden-text", role: "status" });
  let [strokes, values, cursor] = [[], reduced([]), null];

  const show = onceAFrame(() => {
    paint(canvas, strokes, values, cursor);
    paintValues(preview, values);
  });
  const change = (now) => {
    values = now;
    show();
    drawn(values);
  };
  const restart = (now) => {
    [strokes, cursor] = [[], null];
    change(now);
  };
  const reduceSoon = onceAFrame(() => strokes.length && change(reduced(strokes)));
  const point = (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [((event.clientX - left) / width) * SIZE, ((event.clientY - top) / height) * SIZE];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    strokes.push([point(event)]);
    reduceSoon();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(point));
    reduceSoon();
  });
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in MOVES) && event.key !== " ") return;
    event.preventDefault();
    cursor ??= [SIDE / 2, SIDE / 2];
    if (event.key === " ") {
      strokes = []; // cells are filled one by one from what there is
      change(values.map((value, place) => (place === cursor[0] * SIDE + cursor[1] ? (value > 0.5 ? 0 : 1) : value)));
    } else {
      cursor = cursor.map((at, axis) => Math.min(SIDE - 1, Math.max(0, at + MOVES[event.key][axis])));
    }
    const full = values[cursor[0] * SIDE + cursor[1]] > 0.5;
    say(cell, t(full ? "digits.full" : "digits.empty", { row: cursor[0] + 1, column: cursor[1] + 1 }));
    show();
  });
  watch(["theme"], show);
  show();
  return Object.assign(h("div", { class: "drawing" }, canvas, h("figure", {}, preview, h("figcaption", { class: "fine", t: "digits.seen" })), cell),
    { clear: () => restart(reduced([])), load: restart, values: () => values });
}

/** The strokes as they were drawn, or the cells where there are none; and where the keyboard is. */
function paint(canvas, strokes, values, cursor) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, SIZE, SIZE);
  const side = SIZE / SIDE;
  pen.fillStyle = pen.strokeStyle = colour("ink");
  if (!strokes.length) {
    values.forEach((value, place) => {
      pen.globalAlpha = value;
      pen.fillRect((place % SIDE) * side, Math.floor(place / SIDE) * side, side, side);
    });
  }
  pen.globalAlpha = 1;
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) trace(pen, stroke);
  if (cursor) {
    Object.assign(pen, { lineWidth: 4, strokeStyle: colour("accent") });
    pen.strokeRect(cursor[1] * side + 2, cursor[0] * side + 2, side - 4, side - 4);
  }
}

/** A line through the middles between points, which is as smooth as the hand was. */
function trace(pen, points) {
  pen.beginPath();
  pen.moveTo(...points[0]);
  points.forEach(([x, y], place) => {
    const [nextX, nextY] = points[place + 1] ?? [x, y];
    pen.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  });
  pen.lineTo(...points.at(-1));
  pen.stroke();
}

function paintValues(canvas, values) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, SIDE, SIDE);
  pen.fillStyle = colour("ink");
  values.forEach((value, place) => {
    pen.globalAlpha = value;
    pen.fillRect(place % SIDE, Math.floor(place / SIDE), 1, 1);
  });
}
