// Arrays as pictures: one canvas pixel a value, enlarged by CSS.
import { h } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const SIGNED = {
  light: { zero: [246, 247, 249], positive: [29, 88, 178], negative: [219, 110, 15] },
  dark: { zero: [34, 41, 52], positive: [120, 182, 255], negative: [255, 163, 77] },
};

export const theme = () => SIGNED[document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")];

// A value in -1..1 as a colour: orange below zero, blue above it.
export function signedColor(value, { zero, positive, negative } = theme()) {
  const end = value < 0 ? negative : positive;
  const share = Math.min(Math.abs(value), 1) ** 0.8;
  return zero.map((z, i) => Math.round(z + share * (end[i] - z)));
}

export const css = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;

// Black or white, whichever is read better on a colour.
export function inkOn([r, g, b]) {
  const [red, green, blue] = [r, g, b].map((c) => (c / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";
}

export function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

// An empty picture; its text is what a screen reader says.
export function canvas(label, properties = {}) {
  return h("canvas", { width: 1, height: 1, role: "img", "aria-label": label, ...properties });
}

// Values [h, w] as colours around zero; range: the value that has the full colour.
export function paintSigned(target, values, [height, width], range = largest(values)) {
  const colors = theme();
  put(target, height, width, (p) => signedColor(range ? values[p] / range : 0, colors));
}

// An image [c, h, w] in 0..1, grey or in colour.
export function paintImage(target, values, [channels, height, width]) {
  const area = height * width;
  const at = (c, p) => 255 * Math.min(Math.max(values[c * area + p], 0), 1);
  put(target, height, width, (p) => (channels === 3 ? [at(0, p), at(1, p), at(2, p)] : [at(0, p), at(0, p), at(0, p)]));
}

// Maps [n, h, w] side by side in a square, a line between them.
export function paintMosaic(target, values, [count, height, width], range = largest(values)) {
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  const colors = theme();
  const [H, W] = [rows * (height + 1) - 1, columns * (width + 1) - 1];
  put(target, H, W, (p) => {
    const [y, x] = [Math.floor(p / W), p % W];
    const [row, column] = [Math.floor(y / (height + 1)), Math.floor(x / (width + 1))];
    const [dy, dx] = [y - row * (height + 1), x - column * (width + 1)];
    const map = row * columns + column;
    if (dy === height || dx === width || map >= count) return [0, 0, 0, 0];
    return signedColor(range ? values[(map * height + dy) * width + dx] / range : 0, colors);
  });
}

function put(target, height, width, color) {
  if (target.width !== width) target.width = width;
  if (target.height !== height) target.height = height;
  const context = target.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let p = 0; p < height * width; p++) {
    const [r, g, b, alpha = 255] = color(p);
    picture.data.set([r, g, b, alpha], 4 * p);
  }
  context.putImageData(picture, 0, 0);
}

// An image file, upright by its EXIF; null where the browser reads none.
export const decoded = (file) => createImageBitmap(file).catch(() => null);

// Reads a picture on a canvas as an image [c, h, w] in 0..1.
export function readImage(source, [channels, height, width]) {
  const { data } = source.getContext("2d").getImageData(0, 0, width, height);
  const area = height * width;
  const found = new Float32Array(channels * area);
  for (let p = 0; p < area; p++) {
    const [r, g, b] = [data[4 * p] / 255, data[4 * p + 1] / 255, data[4 * p + 2] / 255];
    if (channels === 3) found.set([r], p), found.set([g], area + p), found.set([b], 2 * area + p);
    else found[p] = 0.299 * r + 0.587 * g + 0.114 * b; // ITU-R 601
  }
  return found;
}
