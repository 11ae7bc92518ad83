// A layer opened to its operation: which inputs make one output, the products, their sum, the formula.
import { imageShape } from "./datasets.js";
import { h, scrollTo, svg, transition } from "./dom.js";
import { EPSILON, formatLayer, paddingBefore } from "./network.js";
import { canvas, css, inkOn, largest, paintMosaic, paintSigned, signedColor } from "./pictures.js";
import { ask, softmax } from "./session.js";

const MOST_ROWS = 3; // input maps whose products are written out
const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)).replace("-", "−");

const CURVES = {
  relu: [(x) => Math.max(x, 0), "y = max(x, 0)"],
  leaky_relu: [(x) => (x > 0 ? x : 0.01 * x), "y = x above zero, 0.01 x below"],
  elu: [(x) => (x > 0 ? x : Math.exp(x) - 1), "y = x above zero, eˣ − 1 below"],
  gelu: [(x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))), "y = x Φ(x)"],
  silu: [(x) => x / (1 + Math.exp(-x)), "y = x / (1 + e⁻ˣ)"],
  sigmoid: [(x) => 1 / (1 + Math.exp(-x)), "y = 1 / (1 + e⁻ˣ)"],
  tanh: [Math.tanh, "y = tanh x"],
};

export function mountOperation(page) {
  const element = h("section", { class: "operation", hidden: true, "aria-live": "off" });
  let shown = null; // {index, channel, place: [y, x], origin}
  let sliding = null;

  function close() {
    clearInterval(sliding);
    sliding = null;
    const origin = shown?.origin;
    origin?.classList.remove("opened");
    shown = null;
    element.hidden = true;
    element.replaceChildren();
    return origin;
  }

  function open(index, channel, origin) {
    const layer = page.session.plan[index];
    clearInterval(sliding);
    sliding = null;
    shown?.origin.classList.remove("opened");
    origin.classList.add("opened");
    shown = { index, channel: Math.min(channel, layer.output[0] - 1), place: null, origin };
    element.hidden = false;
    build();
    element.querySelector("button")?.focus({ preventScroll: true });
    scrollTo(element);
  }

  const valuesBefore = (layer) => (layer.index ? page.outputs[layer.index - 1] : normalized(page));

  // The parameters of a layer as plain numbers.
  async function weights(layer) {
    const found = await ask(page.session, "weights", { names: [layer.name] });
    return found?.[layer.name];
  }

  function move(dy, dx) {
    const [, height, width] = page.session.plan[shown.index].output;
    const [y, x] = shown.place;
    shown.place = [Math.min(Math.max(y + dy, 0), height - 1), Math.min(Math.max(x + dx, 0), width - 1)];
    refresh();
  }

  let picture, marker, body, sum, named;
  function build() {
    const layer = page.session.plan[shown.index];
    const maps = layer.output.length === 3;
    const [, height, width] = layer.output;
    body = h("div", { class: "working" });
    sum = h("p", { class: "formula", "aria-live": "polite" });
    const chooser = h("input", { type: "number", min: 1, max: layer.output[0], value: shown.channel + 1, "aria-label": maps ? "Map" : "Output", oninput: () => {
      const wanted = Number(chooser.value);
      if (Number.isInteger(wanted) && wanted >= 1 && wanted <= layer.output[0]) (shown.channel = wanted - 1), refresh();
    } });
    named = h("span", {});
    const head = h(
      "header",
      {},
      h("h3", {}, `Layer ${layer.index + 1}: ${formatLayer(layer)}`),
      h("label", { class: "small" }, maps ? "map " : "output ", chooser, ` of ${layer.output[0]}`, named),
      maps && height * width > 1 ? h("button", { class: "plain", onclick: slide }, "Slide over the map") : null,
      h("button", { class: "plain close", onclick: () => {
        const origin = shown.origin;
        transition(close);
        origin?.focus?.();
      } }, "Close"),
    );
    const parts = [head, h("p", { class: "quiet" }, SAID[layer.kind] ?? "Each value by itself goes through a curve.")];
    picture = marker = null;
    if (maps) {
      picture = canvas("", { style: "view-transition-name: opened" });
      marker = h("div", { class: "marker" });
      const target = h("div", { class: "pick", tabindex: 0, role: "application", "aria-label": "The output map: arrow keys choose the value that is worked out", onkeydown: (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (step) event.preventDefault(), move(...step);
      } }, picture, marker);
      const point = (event) => {
        const { left, top, width: w, height: t } = target.getBoundingClientRect();
        const place = [Math.floor(((event.clientY - top) / t) * height), Math.floor(((event.clientX - left) / w) * width)];
        if (place[0] < 0 || place[1] < 0 || place[0] >= height || place[1] >= width || String(place) === String(shown.place)) return;
        shown.place = place;
        refresh();
      };
      target.addEventListener("pointerdown", point);
      target.addEventListener("pointermove", point);
      parts.push(h("div", { class: "sides" }, body, h("figure", { class: "output" }, target, h("figcaption", {}, "the output; point at a value"))));
    } else parts.push(body);
    parts.push(sum);
    element.replaceChildren(...parts);
    refresh();
  }

  function slide(event) {
    if (sliding) {
      clearInterval(sliding);
      sliding = null;
      event.target.textContent = "Slide over the map";
      return;
    }
    event.target.textContent = "Stop";
    const [, height, width] = page.session.plan[shown.index].output;
    let at = -1;
    sliding = setInterval(() => {
      at = (at + 1) % (height * width);
      shown.place = [Math.floor(at / width), at % width];
      refresh();
    }, 450);
  }

  async function refresh() {
    if (!shown || !page.outputs) return;
    const wanted = shown;
    const layer = page.session.plan[shown.index];
    const out = page.outputs[layer.index];
    const input = valuesBefore(layer);
    const own = await weights(layer);
    if (shown !== wanted || out === undefined || !own) return;
    if (layer.output.length === 3) {
      const [, height, width] = layer.output;
      const map = out.subarray(shown.channel * height * width, (shown.channel + 1) * height * width);
      shown.place ??= strongest(map, width);
      const [y, x] = shown.place;
      paintSigned(picture, map, [height, width], largest(out));
      picture.setAttribute("aria-label", `Output map ${shown.channel + 1}; the value at row ${y + 1}, column ${x + 1} is ${number(map[y * width + x])}`);
      box(marker, [y, x, 1, 1], height, width);
    }
    if (layer.index === page.session.plan.length - 1) named.textContent = `: “${page.session.dataset.classes[shown.channel]}”`;
    const { parts, formula } = (WORKINGS[layer.kind] ?? activation)({ page, layer, out, input, own, ...shown });
    body.replaceChildren(...parts);
    sum.setAttribute("aria-live", page.playing || sliding ? "off" : "polite");
    sum.replaceChildren(...formula);
  }

  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") element.querySelector(".close")?.click();
  });
  // What is open gives its place in the transition to what is opened next.
  const leaveTransition = () => picture && (picture.style.viewTransitionName = "");
  return { element, open, close, refresh, leaveTransition };
}

const SAID = {
  conv: "A window slides over all maps that come in; what it sees is multiplied by the kernel, and the products are added up.",
  max_pool: "Of each window the largest value stays.",
  avg_pool: "Of each window the mean stays.",
  global_avg_pool: "Of each map the mean stays.",
  batch_norm: "Each map is brought to mean zero and variance one over the batch, then scaled and shifted by learnt numbers; here with the running mean and variance.",
  dropout: "In training each value is set to zero by chance and the others are scaled up; here, when it answers, all pass.",
  flatten: "The maps are written one behind the other.",
  dense: "Every value that comes in is multiplied by a weight of its own, and the products are added up.",
};

function normalized({ subject, session: { dataset } }) {
  const [channels, height, width] = imageShape(dataset);
  const area = height * width;
  return subject.pixels.map((value, i) => (value - dataset.mean[Math.floor(i / area) % channels]) / dataset.std[Math.floor(i / area) % channels]);
}

function strongest(map, width) {
  let best = 0;
  map.forEach((value, i) => Math.abs(value) > Math.abs(map[best]) && (best = i));
  return [Math.floor(best / width), best % width];
}

function box(element, [y, x, tall, wide], height, width) {
  Object.assign(element.style, {
    top: `${(100 * y) / height}%`, left: `${(100 * x) / width}%`, height: `${(100 * tall) / height}%`, width: `${(100 * wide) / width}%`,
  });
}

// A map with a window's outline.
function framed(values, [height, width], window, range, caption) {
  const picture = canvas(caption);
  paintSigned(picture, values, [height, width], range);
  const outline = h("div", { class: "marker" });
  box(outline, window, height, width);
  return h("figure", {}, h("div", { class: "pick still" }, picture, outline), h("figcaption", {}, caption));
}

// Numbers in cells of their colour; strong: the cell that counts.
function grid(values, columns, range, caption, strong = -1) {
  return h(
    "figure",
    {},
    h("div", { class: "cells", role: "img", "aria-label": `${caption}: ${Array.from(values, number).join(", ")}`, style: `grid-template-columns: repeat(${columns}, 1fr)` },
      Array.from(values, (value, i) => {
        const color = signedColor(range ? value / range : 0);
        return h("span", { class: i === strong ? "strong" : "", style: `background: ${css(color)}; color: ${inkOn(color)}` }, number(value));
      })),
    h("figcaption", {}, caption),
  );
}

const sign = (text) => h("span", { class: "sign", "aria-hidden": "true" }, text);
const result = (value) => h("strong", {}, number(value));

const WORKINGS = {
  conv({ layer, input, own, out, channel, place: [y, x] }) {
    const [channels, height, width] = layer.input;
    const { size, stride } = layer;
    const [, tall, wide] = layer.output;
    const pad = paddingBefore(layer);
    const [top, left] = [y * stride - pad, x * stride - pad];
    const range = largest(input);
    const kernels = own.kernel.subarray(channel * channels * size * size, (channel + 1) * channels * size * size);
    const strength = largest(kernels);
    const rows = Array.from({ length: channels }, (_, c) => {
      const seen = new Float32Array(size * size);
      for (let v = 0; v < size; v++) {
        for (let u = 0; u < size; u++) {
          const [i, j] = [top + v, left + u];
          if (i >= 0 && j >= 0 && i < height && j < width) seen[v * size + u] = input[(c * height + i) * width + j];
        }
      }
      const kernel = kernels.subarray(c * size * size, (c + 1) * size * size);
      return { c, seen, kernel, sum: seen.reduce((total, value, k) => total + value * kernel[k], 0) };
    });
    const sorted = [...rows].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    const written = sorted.slice(0, MOST_ROWS);
    const others = sorted.slice(MOST_ROWS);
    const rest = others.reduce((total, row) => total + row.sum, 0);
    const value = out[(channel * tall + y) * wide + x];
    const parts = written.map(({ c, seen, kernel, sum }) =>
      h("div", { class: "row" },
        framed(input.subarray(c * height * width, (c + 1) * height * width), [height, width], [top, left, size, size], range, `input ${c + 1}`),
        grid(seen, size, range, "seen"), sign("×"), grid(kernel, size, strength, "kernel"), sign("="),
        grid(seen.map((value, k) => value * kernel[k]), size, range * strength, "products"), sign("→"), h("figure", { class: "sum" }, result(sum), h("figcaption", {}, "their sum"))));
    if (others.length) parts.push(h("p", { class: "quiet" }, `${others.length} more input maps add ${number(rest)}.`));
    const terms = written.map(({ sum }, k) => [k ? " + " : "", `(${number(sum)})`]);
    return {
      parts,
      formula: [
        h("span", { class: "general" }, "y = b + Σ x · w"), h("span", {}, ` = ${number(own.bias[channel])} + `), ...terms.flat(), others.length ? ` + (${number(rest)})` : "", " = ", result(value),
      ],
    };
  },
  max_pool: (given) => pooling(given, "max", (seen) => Math.max(...seen)),
  avg_pool: (given) => pooling(given, "mean", (seen) => seen.reduce((a, b) => a + b) / seen.length),
  global_avg_pool({ layer, input, out, channel }) {
    const [, height, width] = layer.input;
    const map = input.subarray(channel * height * width, (channel + 1) * height * width);
    return {
      parts: [h("div", { class: "row large" }, framed(map, [height, width], [0, 0, height, width], largest(input), `input ${channel + 1}`))],
      formula: [h("span", { class: "general" }, "y = Σ x / n"), ` = ${number(map.reduce((a, b) => a + b))} / ${height * width} = `, result(out[channel])],
    };
  },
  batch_norm({ layer, input, own, out, channel, place }) {
    const at = flatIndex(layer, channel, place);
    const [x, mean, variance, scale, bias] = [input[at], own.mean[channel], own.variance[channel], own.scale[channel], own.bias[channel]];
    return {
      parts: [h("div", { class: "row large" }, ...mapBefore({ layer, input, channel, place }))],
      formula: [
        h("span", { class: "general" }, "y = γ (x − μ) / √(σ² + ε) + β"),
        ` = ${number(scale)} · (${number(x)} − ${number(mean)}) / √(${number(variance)} + ${EPSILON}) + ${number(bias)} = `,
        result(out[at]),
      ],
    };
  },
  dropout: same,
  flatten: same,
  dense({ page, layer, input, own, out, channel }) {
    const outputs = layer.output[0];
    const weight = Float32Array.from(input, (_, i) => own.kernel[i * outputs + channel]);
    const products = input.map((value, i) => value * weight[i]);
    const order = Array.from(products.keys()).sort((a, b) => Math.abs(products[b]) - Math.abs(products[a]));
    const parts = [];
    if (layer.input.length === 3) {
      const mosaic = (values, caption) => {
        const picture = canvas(caption);
        paintMosaic(picture, values, layer.input);
        return h("figure", { class: "mosaic" }, picture, h("figcaption", {}, caption));
      };
      parts.push(h("div", { class: "row" }, mosaic(input, "inputs"), sign("×"), mosaic(weight, `weights of output ${channel + 1}`), sign("="), mosaic(products, "products")));
    }
    const shown = order.slice(0, 6);
    const most = Math.abs(products[order[0]]) || 1;
    parts.push(h("table", {}, h("caption", {}, "The largest products"), h("tbody", {}, shown.map((i) =>
      h("tr", {}, h("th", { scope: "row" }, `input ${i + 1}`), h("td", {}, number(input[i])), h("td", {}, "×"), h("td", {}, number(weight[i])), h("td", {}, "="), h("td", {}, number(products[i])),
        h("td", {}, h("span", { class: "stick", style: `width: ${(5 * Math.abs(products[i])) / most}rem; background: ${css(signedColor(Math.sign(products[i])))}` })))))));
    const written = shown.reduce((total, i) => total + products[i], 0);
    const rest = products.reduce((a, b) => a + b, 0) - written;
    const formula = [
      h("span", { class: "general" }, "y = b + Σ x · w"),
      ` = ${number(own.bias[channel])} + ${shown.map((i) => `(${number(products[i])})`).join(" + ")}${products.length > shown.length ? ` + (${number(rest)} of ${products.length - shown.length} more)` : ""} = `,
      result(out[channel]),
    ];
    if (layer.index === page.session.plan.length - 1) {
      const probabilities = softmax(out);
      const least = Math.max(...out);
      const total = out.reduce((sum, z) => sum + Math.exp(z - least), 0);
      const { classes } = page.session.dataset;
      parts.push(h("table", {}, h("caption", {}, `Softmax: from scores to probabilities; the largest score, ${number(least)}, is taken from all`), h("tbody", {}, classes.map((name, k) =>
        h("tr", { class: k === channel ? "chosen" : "" }, h("th", { scope: "row" }, name), h("td", {}, `y = ${number(out[k])}`), h("td", {}, `eʸ = ${number(Math.exp(out[k] - least))}`), h("td", {}, `${(100 * probabilities[k]).toFixed(1)} %`))))));
      formula.push(h("br"), h("span", { class: "general" }, "p = eʸ / Σ eʸ"), ` = ${number(Math.exp(out[channel] - least))} / ${number(total)} = `, h("strong", {}, `${(100 * probabilities[channel]).toFixed(1)} %`));
    }
    return { parts, formula };
  },
};

function flatIndex(layer, channel, place) {
  if (layer.output.length === 1) return channel;
  const [, height, width] = layer.output;
  return (channel * height + place[0]) * width + place[1];
}

function mapBefore({ layer, input, channel, place }) {
  if (layer.input.length === 1) return [];
  const [, height, width] = layer.input;
  return [framed(input.subarray(channel * height * width, (channel + 1) * height * width), [height, width], [...place, 1, 1], largest(input), `input ${channel + 1}`)];
}

function pooling({ layer, input, out, channel, place: [y, x] }, name, f) {
  const [, height, width] = layer.input;
  const [, tall, wide] = layer.output;
  const { size, stride } = layer;
  const map = input.subarray(channel * height * width, (channel + 1) * height * width);
  const seen = Float32Array.from({ length: size * size }, (_, k) => map[(y * stride + Math.floor(k / size)) * width + x * stride + (k % size)]);
  const range = largest(input);
  const strong = name === "max" ? seen.indexOf(f(seen)) : -1;
  return {
    parts: [h("div", { class: "row" }, framed(map, [height, width], [y * stride, x * stride, size, size], range, `input ${channel + 1}`), grid(seen, size, range, "seen", strong), sign("→"), h("figure", { class: "sum" }, result(f(seen)), h("figcaption", {}, name)))],
    formula: [h("span", { class: "general" }, `y = ${name}(x)`), ` = ${name}(${Array.from(seen, number).join(", ")}) = `, result(out[(channel * tall + y) * wide + x])],
  };
}

function activation({ layer, input, out, channel, place }) {
  const at = flatIndex(layer, channel, place);
  const [f, formula] = CURVES[layer.kind];
  const [x, y] = [input[at], out[at]];
  const reach = Math.max(3, Math.abs(x) * 1.2);
  const [W, H] = [220, 140];
  const px = (value) => W / 2 + (value / reach) * (W / 2);
  const py = (value) => H * 0.7 - (value / reach) * (H * 0.66);
  const path = Array.from({ length: 81 }, (_, i) => -reach + (i * reach) / 40).map((v, i) => `${i ? "L" : "M"}${px(v).toFixed(1)} ${py(f(v)).toFixed(1)}`);
  const graph = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "graph", role: "img", "aria-label": `${formula}: ${number(x)} becomes ${number(y)}` },
    svg("line", { x1: 0, x2: W, y1: py(0), y2: py(0), class: "grid" }), svg("line", { x1: W / 2, x2: W / 2, y1: 0, y2: H, class: "grid" }),
    svg("path", { d: path.join(""), class: "train" }),
    svg("path", { d: `M${px(x)} ${py(0)}L${px(x)} ${py(y)}L${W / 2} ${py(y)}`, class: "guessing" }),
    svg("circle", { cx: px(x), cy: py(y), r: 5, class: "dot" }));
  return {
    parts: [h("div", { class: "row large" }, ...mapBefore({ layer, input, channel, place }), sign("→"), graph)],
    formula: [h("span", { class: "general" }, formula), `; ${number(x)} becomes `, result(y)],
  };
}

function same({ layer, input, out, channel, place }) {
  const at = layer.kind === "flatten" ? channel : flatIndex(layer, channel, place);
  return {
    parts: [h("div", { class: "row large" }, ...(layer.kind === "flatten" ? [] : mapBefore({ layer, input, channel, place })))],
    formula: [h("span", { class: "general" }, "y = x"), ` = `, result(out[at])],
  };
}

