/** Losses as a picture: for each job its raw curve, the smoothed one, validation, the optimum, and what stands out. */

import { best, smoothed } from "./curve.js";
import { WHOLE, axis, font, seriesColour } from "./plot.js";
import { colour } from "./theme.js";
import { t } from "./i18n.js";

const EACH = 3; // series of a job: raw, smoothed, validation
const FAINT = 0.28;

/** The columns of a chart: the epochs of all jobs, and for each job its three curves. */
export function columns(shown, { log, smoothing }) {
  if (!shown.length) return [[]];
  const shows = log ? (number) => number > 0 && Number.isFinite(number) : Number.isFinite;
  return uPlot.join(shown.map(({ job, curve: { epochs, losses, validation } }) => {
    const after = unlisted(job, epochs); // so that there is room for its mark
    const column = (numbers) => [...epochs.map((_, place) => (shows(numbers?.[place]) ? numbers[place] : null)), ...after.map(() => null)];
    return [[...epochs, ...after], column(losses), column(smoothing ? smoothed(epochs, losses, smoothing) : null), column(validation)];
  }));
}

/** A chart of the jobs `shown`, each {job, curve}, that calls `pointed` as the pointer moves and `zoomed` with the
 * epochs that the reader drew a frame around, or null. `current()` is what is shown at the time of drawing. */
export function lossPlot(place, size, data, shown, { log, smoothing }, { current, pointed, zoomed }) {
  const options = {
    ...size,
    legend: { show: false },
    cursor: {
      drag: { x: true, y: false }, points: { size: 6 },
      bind: { dblclick: () => () => zoomed(null) },
    },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1, range: (_, low, high) => span(low, high, current(), log) } },
    axes: [{ ...axis(t("chart.epoch")), incrs: WHOLE }, axis(t("chart.loss"), undefined, 62)],
    series: [{}, ...shown.flatMap((_, at) => series(at, smoothing))],
    hooks: {
      setCursor: [pointed],
      setSelect: [(chart) => {
        if (chart.select.width > 0) zoomed([chart.posToVal(chart.select.left, "x"), chart.posToVal(chart.select.left + chart.select.width, "x")]);
      }],
      draw: [(chart) => current().forEach((one, at) => marks(chart, one, at))],
    },
  };
  return new uPlot(options, data, place);
}

function series(at, smoothing) {
  const common = { stroke: seriesColour(at), width: 1.75, spanGaps: false, points: { show: (chart, i) => few(chart, i), size: 5 } };
  return [
    { ...common, alpha: smoothing ? FAINT : 1 },
    { ...common, show: smoothing > 0, points: { show: false } },
    { ...common, dash: [6, 4], points: { show: false } },
  ];
}

/** Points are shown where there are too few for a line to be seen. */
function few(chart, place) {
  const seen = chart.data[place].filter((number) => typeof number === "number").length;
  return seen > 0 && seen < 20;
}

/** What the losses reach from and to, with the optima that there are, and some room. */
function span(low, high, shown, log) {
  if (low === null || high === null) return log ? [0.1, 10] : [0, 1];
  const optima = shown.map(({ job }) => job.metrics.optimum_loss).filter((optimum) => typeof optimum === "number" && (!log || optimum > 0));
  const [bottom, top] = [Math.min(low, ...optima), Math.max(high, ...optima)];
  if (log) return uPlot.rangeLog(bottom, top === bottom ? top * 1.1 : top, 10, false);
  const room = (top - bottom) * 0.06 || Math.abs(top) * 0.1 || 1;
  return [bottom - room, top + room];
}

/** The optimum as a line, the best epoch as a ring, and a cross where a loss was not finite. */
function marks(chart, { job, curve }, at) {
  const pen = chart.ctx;
  const { left, top, width, height } = chart.bbox;
  const stroke = seriesColour(at);
  const x = (epoch) => chart.valToPos(epoch, "x", true);
  const y = (loss) => chart.valToPos(loss, "y", true);
  const within = (epoch) => epoch >= chart.scales.x.min && epoch <= chart.scales.x.max;
  pen.save();
  pen.beginPath();
  pen.rect(left, top, width, height);
  pen.clip();
  pen.setLineDash([]);
  Object.assign(pen, { strokeStyle: stroke, fillStyle: stroke, lineWidth: 1.5 * devicePixelRatio });
  const { optimum_loss: optimum } = job.metrics;
  if (typeof optimum === "number" && (chart.scales.y.distr !== 3 || optimum > 0)) {
    line(pen, [left, y(optimum)], [left + width, y(optimum)], [2, 4]);
    label(pen, t("chart.optimum"), left + width, y(optimum) + 13 * devicePixelRatio, "right");
  }
  for (const epoch of broken(job, curve).filter(within)) {
    pen.strokeStyle = pen.fillStyle = colour("bad");
    line(pen, [x(epoch), top], [x(epoch), top + height], [3, 3]);
    label(pen, `✕ ${t("chart.notFinite", { epoch })}`, x(epoch) - 5 * devicePixelRatio, top + 14 * devicePixelRatio, "right");
  }
  pen.restore();
  const place = best(curve);
  if (place >= 0 && within(curve.epochs[place])) ring(pen, stroke, x(curve.epochs[place]), y((curve.validation ?? curve.losses)[place]));
}

/** The epochs whose loss was not finite. */
export function broken(job, { epochs, losses }) {
  return [...epochs.filter((_, place) => !Number.isFinite(losses[place])), ...unlisted(job, epochs)];
}

/** The epoch at which a job diverged: the service lists its losses up to the one before. */
function unlisted(job, epochs) {
  return job.reason === "diverged" ? [(epochs.at(-1) ?? 0) + 1] : [];
}

function line(pen, from, to, dash) {
  pen.setLineDash(dash.map((length) => length * devicePixelRatio));
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(...to);
  pen.stroke();
  pen.setLineDash([]);
}

function ring(pen, stroke, x, y) {
  pen.save();
  pen.setLineDash([]);
  Object.assign(pen, { strokeStyle: stroke, lineWidth: 1.5 * devicePixelRatio });
  pen.beginPath();
  pen.arc(x, y, 5 * devicePixelRatio, 0, 2 * Math.PI);
  pen.fillStyle = colour("surface");
  pen.fill();
  pen.stroke();
  pen.restore();
}

function label(pen, text, x, y, align) {
  const size = font(11).replace(/^\d+/, (pixels) => pixels * devicePixelRatio);
  const room = pen.measureText(text).width;
  Object.assign(pen, { font: size, textAlign: x < room + 80 * devicePixelRatio ? "left" : align });
  pen.fillText(text, x + (pen.textAlign === "left" ? 10 : -4) * devicePixelRatio, y);
}

/** What job `at` has at a place of the chart's data: the last at or before it. */
export function valuesAt(data, at, index) {
  const first = 1 + at * EACH;
  let place = index;
  while (place >= 0 && data[first][place] === undefined) place -= 1;
  if (place < 0) return null;
  const [loss, smooth, validation] = [0, 1, 2].map((column) => data[first + column][place] ?? null);
  return { epoch: data[0][place], loss, smooth, validation };
}
