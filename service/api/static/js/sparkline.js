/** A curve as small as a word. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 100;
const HEIGHT = 24;

/** An empty sparkline; `draw(values)` gives it its curve, with gaps where a value is no number. */
export function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "sparkline");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  svg.draw = (values, floor) => path.setAttribute("d", outline(values, floor));
  return svg;
}

function outline(values, floor) {
  const finite = values.filter(Number.isFinite);
  if (finite.length < 2) return "";
  const low = Math.min(...finite, floor ?? Infinity);
  const span = Math.max(...finite) - low || 1;
  let pen = "M";
  return values
    .map((value, place) => {
      if (!Number.isFinite(value)) {
        pen = "M";
        return "";
      }
      const x = (place / (values.length - 1)) * WIDTH;
      const y = HEIGHT - 2 - ((value - low) / span) * (HEIGHT - 4);
      const step = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
}
