/** What all charts of the page have in common: colours, axes, size, and how they are taken as a picture. */

import { figure } from "./format.js";
import { colour } from "./theme.js";

export const SERIES = 8;
export const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]; // steps between epochs, or ranks

/** The colour of the n-th thing that is drawn. */
export function seriesColour(place) {
  return colour(`series-${place % SERIES}`);
}

/** An axis in the colours of the theme. */
export function axis(label, values = figures, size = 30) {
  const stroke = colour("line");
  return {
    label, values, size: grown(size), space: grown(48), labelSize: grown(24), labelGap: 2, labelFont: font(12), font: font(11),
    stroke: colour("muted"), grid: { stroke, width: 1 }, ticks: { stroke, width: 1, size: 5 },
  };
}

function figures(_, ticks) {
  return ticks.map((tick) => (tick === null ? "" : figure(tick, 3)));
}

export function font(size) {
  return `${grown(size)}px system-ui, sans-serif`;
}

/** A size in pixels, as much larger as the page's letters are. */
function grown(size) {
  return Math.round((size * parseFloat(getComputedStyle(document.documentElement).fontSize)) / 14);
}

/** Keep a chart as wide and as high as its place; `current()` is the chart, or null. */
export function fit(place, current) {
  new ResizeObserver(() => current()?.setSize(sizeOf(place))).observe(place);
}

export function sizeOf(place) {
  return { width: Math.max(200, place.clientWidth), height: Math.max(160, place.clientHeight) };
}

/** The chart as a PNG, on the page's ground, with lines of text above it. */
export function picture(chart, lines) {
  const drawn = chart.ctx.canvas;
  const scale = devicePixelRatio;
  const head = lines.length ? (lines.length * 18 + 10) * scale : 0;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [drawn.width, drawn.height + head];
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour("surface");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.font = `${13 * scale}px system-ui, sans-serif`;
  lines.forEach(({ text, stroke }, place) => {
    pen.fillStyle = stroke;
    pen.fillText(text, 12 * scale, (place + 1) * 18 * scale);
  });
  pen.drawImage(drawn, 0, head);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
