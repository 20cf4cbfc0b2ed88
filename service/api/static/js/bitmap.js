/** Drawn strokes as the 8×8 grey values of the UCI optical digits: a 32×32 bitmap whose dots are counted by 4×4 blocks.
 *
 * E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
 */

export const SIDE = 8;
const BITMAP = 32;
const BLOCK = BITMAP / SIDE;
const WIDEST = 25; // their digits are as high as the bitmap, and leave its first and last columns empty
const INK = 0.3; // of all dots, in each of their classes: thin digits have thicker strokes
const [THINNEST, THICKEST] = [2.5, 8];
const HALVINGS = 8;

/** The 64 values from 0 to 1 of strokes, each a list of points [x, y] in any unit; zeros where there are none. */
export function reduced(strokes) {
  if (!strokes.flat().length) return Array(SIDE * SIDE).fill(0);
  let [thin, thick] = [THINNEST, THICKEST];
  for (let turn = 0; turn < HALVINGS; turn += 1) {
    const middle = (thin + thick) / 2;
    if (inkOf(bitmap(strokes, middle)) < INK) thin = middle;
    else thick = middle;
  }
  return counted(bitmap(strokes, (thin + thick) / 2));
}

const inkOf = (dots) => dots.reduce((sum, dot) => sum + dot, 0) / dots.length;

/** The dots within reach of a pen of some thickness, once the strokes are scaled to fill the bitmap. */
function bitmap(strokes, thickness) {
  const segments = fitted(strokes, thickness).flatMap(segmentsOf);
  const reach = (thickness / 2) ** 2;
  const dots = new Uint8Array(BITMAP * BITMAP);
  for (let place = 0; place < dots.length; place += 1) {
    const [x, y] = [(place % BITMAP) + 0.5, Math.floor(place / BITMAP) + 0.5];
    dots[place] = segments.some((segment) => distance2(x, y, segment) <= reach) ? 1 : 0;
  }
  return dots;
}

/** The strokes in the middle of the bitmap, as large as goes with their proportions kept. */
function fitted(strokes, thickness) {
  const [xs, ys] = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]));
  const ends = [xs, ys].map((all) => [Math.min(...all), Math.max(...all)]);
  const [[left, right], [top, bottom]] = ends;
  const scale = Math.min((WIDEST - thickness) / (right - left || 1e-9), (BITMAP - thickness) / (bottom - top || 1e-9));
  const move = ([x, y]) => [(x - (left + right) / 2) * scale + BITMAP / 2, (y - (top + bottom) / 2) * scale + BITMAP / 2];
  return strokes.map((stroke) => stroke.map(right === left && bottom === top ? () => [BITMAP / 2, BITMAP / 2] : move));
}

function segmentsOf(points) {
  if (points.length === 1) return [[points[0], points[0]]];
  return points.slice(1).map((point, place) => [points[place], point]);
}

/** The square of the distance of a point from a segment. */
function distance2(x, y, [[x1, y1], [x2, y2]]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length2 = dx * dx + dy * dy;
  const along = length2 ? Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / length2)) : 0;
  return (x - x1 - along * dx) ** 2 + (y - y1 - along * dy) ** 2;
}

function counted(dots) {
  const values = Array(SIDE * SIDE).fill(0);
  dots.forEach((dot, place) => {
    const [row, column] = [Math.floor(place / BITMAP / BLOCK), Math.floor((place % BITMAP) / BLOCK)];
    values[row * SIDE + column] += dot / BLOCK ** 2;
  });
  return values;
}
