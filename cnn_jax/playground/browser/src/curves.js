// A chart of lines over the steps, drawn anew as it grows.
import { h, svg } from "./dom.js";

const W = 320;
const H = 150;
const LEFT = 34;
const BOTTOM = 18;

// lines: {name, className, points: [[step, value], ...]}; scale: a function of all values -> [low, high].
export function chart(label) {
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label, class: "chart" });
  const legend = h("p", { class: "legend" });
  return {
    element: h("figure", { class: "curve" }, h("figcaption", {}, label), drawing, legend),
    draw(lines, { low, high, ticks, text, until, reference }) {
      const x = (step) => LEFT + ((W - LEFT - 6) * step) / Math.max(until, 1);
      const y = (value) => 6 + (H - BOTTOM - 6) * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low || 1));
      const grid = ticks.map((tick) => [
        svg("line", { x1: LEFT, x2: W - 6, y1: y(tick), y2: y(tick), class: "grid" }),
        svg("text", { x: LEFT - 5, y: y(tick) + 3, class: "tick", "text-anchor": "end" }, text(tick)),
      ]);
      const steps = [0, until / 2, until].map((step, i) =>
        svg("text", { x: x(step), y: H - 4, class: "tick", "text-anchor": ["start", "middle", "end"][i] }, `${Math.round(step)}`),
      );
      const guessing = reference === undefined ? [] : [svg("line", { x1: LEFT, x2: W - 6, y1: y(reference), y2: y(reference), class: "guessing" })];
      const paths = lines.map(({ className, points }) =>
        svg("path", { class: className, d: points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("") }),
      );
      drawing.replaceChildren(...grid.flat(), ...steps, ...guessing, ...paths);
      const said = lines.filter(({ points, name }) => points.length && name);
      legend.replaceChildren(
        ...said.map(({ name, className, points }) => h("span", { class: className }, `${name} ${text(points.at(-1)[1], true)}`)),
      );
      drawing.setAttribute("aria-label", `${label}: ${said.map(({ name, points }) => `${name} ${text(points.at(-1)[1], true)}`).join(", ") || "no step yet"}`);
    },
  };
}

// Points thinned to so many, and smoothed over their neighbours in time.
export function smoothed(values, weight = 0.9, most = 300) {
  const points = [];
  let mean = 0;
  let scale = 0;
  const every = Math.ceil(values.length / most);
  values.forEach((value, step) => {
    mean = weight * mean + (1 - weight) * value;
    scale = weight * scale + (1 - weight);
    if (step % every === 0 || step === values.length - 1) points.push([step, mean / scale]);
  });
  return points;
}

export function thinned(values, most = 400) {
  const every = Math.ceil(values.length / most);
  return values.flatMap((value, step) => (step % every ? [] : [[step, value]]));
}
