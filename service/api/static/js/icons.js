/** Small drawings for buttons, by name. */

const PATHS = {
  train: "M5 3l8 5-8 5z",
  open: "M6 3h7v7M13 3L5 11M3 6v7h7",
  profile: "M2 13h12M3 11l3-5 3 2 4-6",
  export: "M8 2v8M5 7l3 3 3-3M3 13h10",
  delete: "M3 4h10M6 4V2h4v2M5 4l.6 9h4.8L11 4",
  copy: "M6 6h7v7H6zM3 10V3h7",
  cancel: "M4 4l8 8M12 4l-8 8",
  key: "M9.5 6.5a3 3 0 1 0-2 2.8L9 11h2v2h2v-2.5z",
};
const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
