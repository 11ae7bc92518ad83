// The network as columns of pictures, what each layer makes of the image, edited in place and as text.
import { imageShape } from "./datasets.js";
import { h, keepFocus, select, transition } from "./dom.js";
import { ACTIVATIONS, format, formatLayer, parse, thousands } from "./network.js";
import { mountOperation } from "./operation.js";
import { configure, rateNow } from "./page.js";
import { canvas, css, largest, paintImage, paintMosaic, paintSigned, signedColor } from "./pictures.js";
import { ask, softmax } from "./session.js";

const SHOWN = 16; // maps of a layer
const TITLES = {
  conv: "convolution", batch_norm: "batch norm", relu: "ReLU", leaky_relu: "leaky ReLU", elu: "ELU", gelu: "GELU", silu: "SiLU",
  sigmoid: "sigmoid", tanh: "tanh", max_pool: "max pooling", avg_pool: "average pooling", global_avg_pool: "global average",
  dropout: "dropout", flatten: "flatten", dense: "dense",
};
const NEW_LAYERS = ["conv 8 3x3", "batch_norm", "relu", "max_pool 2", "avg_pool 2", "global_avg_pool", "dropout 0.2", "dense 32", "leaky_relu", "gelu", "tanh"];
const PRESETS = {
  "two convolutions": "conv 8 3x3 | relu | max_pool 2 | conv 16 3x3 | relu | max_pool 2 | dense N",
  "with batch norm": "conv 8 3x3 | batch_norm | relu | max_pool 2 | conv 16 3x3 | batch_norm | relu | max_pool 2 | dense N",
  "with dropout": "conv 16 3x3 | relu | max_pool 2 | conv 32 3x3 | relu | max_pool 2 | dropout 0.3 | dense N",
  "strides, no pooling": "conv 8 3x3 | relu | conv 16 3x3 stride 2 | relu | conv 16 3x3 stride 2 | relu | dense N",
  "global average": "conv 12 3x3 | relu | max_pool 2 | conv 24 3x3 | relu | global_avg_pool | dense N",
  "LeNet-5, small": "conv 6 3x3 | relu | max_pool 2 | conv 16 3x3 | relu | max_pool 2 | dense 60 | relu | dense 40 | relu | dense N",
  "dense layers alone": "dense 48 | relu | dense N",
  "linear": "dense N",
};

export const title = (layer) => TITLES[layer.kind];

export function mountNetwork(page) {
  const columns = h("div", { class: "columns" });
  const edges = h("canvas", { class: "edges", "aria-hidden": "true" });
  const stage = h("div", { class: "stage", tabindex: 0, role: "group", "aria-label": "The layers, from the image to the answer" }, edges, columns);
  const summary = h("p", { class: "quiet" });
  const operation = mountOperation(page);
  let mode = "activations";
  let views = []; // of the layers: {layer, tiles: [{canvas, index}], bars}
  let outputs = []; // of the layers, for the subject: Float32Array
  let kernels = {}; // of the convolutions, by name: {kernel, bias}
  let fresh = 0;

  const edit = (layers) => configure(page, { network: format(layers), start: "seed", rate: rateNow(page) });
  const layersNow = () => parse(page.config.network);
  const replaceAt = (i, changes) => edit(layersNow().map((layer, k) => (k === i ? { ...layer, ...changes } : layer)));

  function column(layer) {
    const i = layer.index;
    const number = (name, label, step = 1) => {
      const input = h("input", { type: "number", value: layer[name], step, "aria-label": `${label} of layer ${i + 1}`, title: label, onchange: () => {
        const words = { ...layersNow()[i], [name]: Number(input.value) };
        if (name === "size" && layer.kind !== "conv" && layer.stride === layer.size) words.stride = words.size;
        const text = layersNow().map((each, k) => formatLayer(k === i ? words : each)).join(" | ");
        configure(page, { network: text, start: "seed", rate: rateNow(page) });
      } });
      return input;
    };
    const options = [];
    if (layer.kind === "conv") {
      options.push(number("features", "Maps"), h("span", {}, "×"), number("size", "Side of the kernel"), h("label", { class: "small" }, "stride ", number("stride", "Stride")));
    } else if (layer.kind === "dense" && i < page.session.plan.length - 1) options.push(number("features", "Neurons"));
    else if (layer.kind === "max_pool" || layer.kind === "avg_pool") options.push(number("size", "Side of the window"));
    else if (layer.kind === "dropout") options.push(number("rate", "Share that is dropped", 0.1));
    else if (ACTIVATIONS.includes(layer.kind)) {
      options.push(select(ACTIVATIONS, layer.kind, (kind) => edit(layersNow().map((each, k) => (k === i ? { kind } : each))), { "aria-label": `Activation of layer ${i + 1}` }));
    }
    const isMaps = layer.output.length === 3;
    const last = i === page.session.plan.length - 1;
    const shown = isMaps ? Math.min(layer.output[0], SHOWN) : 0;
    const tiles = Array.from({ length: shown }, (_, k) => {
      const picture = canvas("");
      const button = h("button", { class: "tile", title: `Map ${k + 1}: how it is made`, "aria-label": `Layer ${i + 1}, ${title(layer)}, map ${k + 1}: open how it is made`, onclick: () => openOperation(layer, k, button) }, picture);
      return { button, picture, index: k };
    });
    let bars = null;
    let strip = null;
    if (last) bars = classBars(page, (k, button) => openOperation(layer, k, button));
    else if (!isMaps) {
      strip = canvas("");
      const button = h("button", { class: "tile strip", "aria-label": `Layer ${i + 1}, ${title(layer)}: open how it is made`, onclick: () => openOperation(layer, 0, button) }, strip);
      tiles.push({ button, picture: strip, index: -1 });
    }
    const more = isMaps && layer.output[0] > shown ? h("p", { class: "quiet" }, `${layer.output[0] - shown} more`) : null;
    const remove = last || page.hides("network") ? null : h("button", { class: "remove", title: "Remove this layer", "aria-label": `Remove layer ${i + 1}, ${title(layer)}`, onclick: () => edit(layersNow().filter((_, k) => k !== i)) }, "×");
    const element = h(
      "section",
      { class: `layer ${layer.kind} ${isMaps ? "" : "flat"} ${last ? "last" : ""}`, "aria-label": `Layer ${i + 1}: ${formatLayer(layer)}` },
      h("header", {}, h("h3", {}, h("button", { class: "open", "aria-label": `Open layer ${i + 1}, ${title(layer)}`, onclick: () => openOperation(layer, 0, tiles[0]?.button ?? element) }, title(layer))), remove),
      page.hides("network") ? null : h("div", { class: "options" }, options),
      h("div", { class: `maps ${shown > 8 ? "wide" : ""}` }, bars ? bars.element : tiles.map(({ button }) => button), more),
      h("footer", {}, layer.output.join("×"), h("br"), layer.parameters ? `${thousands(layer.parameters)} weights` : " "),
    );
    return { layer, element, tiles, bars, strip };
  }

  function adder(i) {
    if (page.hides("network")) return h("div", { class: "gap" });
    const chooser = select([["", "+"], ...NEW_LAYERS], "", (text) => {
      const layers = layersNow();
      layers.splice(i, 0, ...parse(text));
      edit(layers).then((done) => done || (chooser.value = ""));
    }, { class: "add", title: "Insert a layer here", "aria-label": i ? `Insert a layer behind layer ${i}` : "Insert a layer in front" });
    return h("div", { class: "gap" }, chooser);
  }

  const inputTiles = [];
  function rebuild() {
    const { plan, dataset } = page.session;
    operation.close();
    outputs = [];
    page.outputs = null;
    views = plan.map(column);
    inputTiles.splice(0, inputTiles.length, { picture: canvas("The image that the network sees"), index: 0 });
    const input = h("section", { class: "layer input", "aria-label": "The image" }, h("header", {}, h("h3", {}, "image")), h("div", { class: "maps" }, h("div", { class: "tile" }, inputTiles[0].picture)), h("footer", {}, imageShape(dataset).join("×"), h("br"), " "));
    inputTiles[0].button = input.querySelector(".tile");
    columns.replaceChildren(input, ...views.flatMap(({ element }, i) => [adder(i), element]));
    const sum = (name) => plan.reduce((total, layer) => total + layer[name], 0);
    summary.textContent = `${thousands(sum("parameters"))} weights, ${thousands(sum("macs"))} multiply-adds an image`;
  }

  async function refresh() {
    const { session, subject } = page;
    if (!subject || subject.pixels.length !== imageShape(session.dataset).reduce((a, b) => a * b)) return;
    const turn = ++fresh;
    const names = session.plan.filter(({ kind }) => kind === "conv").map(({ name }) => name);
    const [found, weights] = await Promise.all([ask(session, "activations", { pixels: subject.pixels }), ask(session, "weights", { names })]);
    if (!found || !weights || turn !== fresh || session !== page.session) return;
    outputs = found;
    page.outputs = found;
    kernels = weights;
    paint();
    operation.refresh();
  }

  function paint() {
    const { session, subject } = page;
    if (!outputs.length) return;
    paintImage(inputTiles[0].picture, subject.pixels, imageShape(session.dataset));
    inputTiles[0].picture.setAttribute("aria-label", `The image: ${subject.text}`);
    for (const { layer, tiles, bars } of views) {
      const values = outputs[layer.index];
      if (bars) {
        bars.show(softmax(values));
        continue;
      }
      const range = largest(values);
      for (const { picture, index } of tiles) {
        if (index < 0) {
          const side = values.length > 64 ? Math.ceil(values.length / 4) : values.length > 24 ? Math.ceil(values.length / 2) : values.length;
          const across = Math.ceil(values.length / side);
          const padded = new Float32Array(side * across);
          padded.set(values);
          paintSigned(picture, padded, [side, across], range);
          picture.setAttribute("aria-label", `${values.length} values of layer ${layer.index + 1}, ${title(layer)}`);
          continue;
        }
        const [, height, width] = layer.output;
        if (mode === "filters" && layer.kind === "conv") paintFilter(picture, layer, index);
        else {
          paintSigned(picture, values.subarray(index * height * width, (index + 1) * height * width), [height, width], range);
          picture.setAttribute("aria-label", `Activation ${index + 1} of layer ${layer.index + 1}, ${title(layer)}`);
        }
      }
    }
    drawEdges();
  }

  function paintFilter(picture, layer, index) {
    const { kernel } = kernels[layer.name];
    const [c] = layer.input;
    const count = c * layer.size ** 2;
    const own = kernel.subarray(index * count, (index + 1) * count);
    if (c === 3) {
      const range = largest(own);
      paintImage(picture, own.map((value) => 0.5 + (0.5 * value) / range), [3, layer.size, layer.size]);
    } else paintMosaic(picture, own, [c, layer.size, layer.size]);
    picture.setAttribute("aria-label", `Filter ${index + 1} of layer ${layer.index + 1}: ${c} × ${layer.size} × ${layer.size} weights`);
  }

  // Curves from the maps of a layer to those that they go into, in the colour of the mean weight.
  function drawEdges() {
    if (!page.session || !outputs.length) return;
    const box = columns.getBoundingClientRect();
    const ratio = Math.min(devicePixelRatio || 1, 2);
    if (!box.width) return;
    edges.width = box.width * ratio;
    edges.height = box.height * ratio;
    edges.style.width = `${box.width}px`;
    edges.style.height = `${box.height}px`;
    const context = edges.getContext("2d");
    context.scale(ratio, ratio);
    context.lineWidth = 1.2;
    const place = (element, right) => {
      const { left, top, width, height } = element.getBoundingClientRect();
      return [left - box.left + (right ? width : 0), top - box.top + height / 2];
    };
    const line = (from, to, color) => {
      const middle = (from[0] + to[0]) / 2;
      context.strokeStyle = color;
      context.beginPath();
      context.moveTo(...from);
      context.bezierCurveTo(middle, from[1], middle, to[1], ...to);
      context.stroke();
    };
    const quiet = getComputedStyle(columns).getPropertyValue("--line");
    let before = inputTiles;
    for (const { layer, tiles, bars } of views) {
      const kernel = kernels[layer.name]?.kernel;
      const here = bars ? bars.rows.map((button, index) => ({ button, index })) : tiles;
      if (!here.length) continue;
      const all = ["conv", "dense"].includes(layer.kind) || layer.output.length !== layer.input.length;
      for (const to of here) {
        for (const from of all ? before : before.filter(({ index }) => index === to.index)) {
          let color = quiet;
          if (kernel) {
            const area = layer.size ** 2;
            const channels = layer.index ? [from.index] : Array.from({ length: layer.input[0] }, (_, c) => c);
            let mean = 0;
            for (const c of channels) {
              const at = (to.index * layer.input[0] + c) * area;
              for (let k = 0; k < area; k++) mean += kernel[at + k] / area / channels.length;
            }
            color = css(signedColor(Math.sign(mean)), Math.min(0.85, 0.08 + 1.6 * Math.abs(mean)));
          }
          line(place(from.button, true), place(to.button, false), color);
        }
      }
      before = here;
    }
  }

  function openOperation(layer, channel, origin) {
    const picture = origin.querySelector?.("canvas");
    operation.leaveTransition();
    if (picture) picture.style.viewTransitionName = "opened";
    const change = transition(() => {
      if (picture) picture.style.viewTransitionName = "";
      operation.open(layer.index, channel, origin);
    });
    for (const end of [change?.ready, change?.finished]) end?.catch(() => {}); // another one may overtake it
  }

  const text = h("textarea", { id: "network-text", rows: 2, spellcheck: "false", autocapitalize: "off", "aria-label": "The network as text" });
  const apply = () => configure(page, { network: text.value.trim(), start: "seed", rate: rateNow(page) });
  const asText = page.hides("network") ? null : h(
    "form",
    { class: "text", onsubmit: (event) => (event.preventDefault(), apply()) },
    h("label", { for: "network-text" }, "As text"),
    text,
    h("button", { class: "plain", id: "apply-text" }, "Use this network"),
    h("label", { class: "field" }, h("span", {}, "Examples"), select([["", "choose …"], ...Object.keys(PRESETS)], "", (name) => name && configure(page, { network: PRESETS[name].replace("N", page.dataset.classes.length), start: "seed", rate: rateNow(page) }))),
  );
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), apply();
  });

  const modes = h("div", { class: "segments", role: "group", "aria-label": "What the pictures show" }, ["activations", "filters"].map((name) =>
    h("button", { "aria-pressed": name === mode, onclick: () => {
      mode = name;
      for (const button of modes.children) button.setAttribute("aria-pressed", button.textContent === name);
      paint();
    } }, name)));

  page.on("session", () => {
    keepFocus(columns, rebuild);
    text.value = page.config.network;
  });
  page.on("step subject tested", refresh);
  page.on("theme", paint);
  new ResizeObserver(() => drawEdges()).observe(columns);

  return h(
    "section",
    { class: "card network", "aria-labelledby": "network-title" },
    h("header", {}, h("h2", { id: "network-title" }, "Network"), summary, modes, legend()),
    stage,
    operation.element,
    asText,
  );
}

function legend() {
  return h("p", { class: "scale quiet", "aria-label": "Colours: orange below zero, blue above zero" }, "− ", h("span", { class: "ramp" }), " +");
}

// Room for the longest of the names, so that the bars begin below each other.
export const nameWidth = (names) => `--name: ${Math.max(...names.map(({ length }) => length))}ch`;

// The probabilities of the classes as bars, each a button.
function classBars(page, onclick) {
  const { classes } = page.session.dataset;
  const fills = classes.map(() => h("span", { class: "fill" }));
  const numbers = classes.map(() => h("span", { class: "percent" }));
  const rows = classes.map((name, k) => h("button", { class: "bar-row", title: "How this output is made", onclick: () => onclick(k, rows[k]) }, h("span", { class: "name" }, name), h("span", { class: "track" }, fills[k]), numbers[k]));
  return {
    element: h("div", { class: "class-bars", style: nameWidth(classes) }, rows),
    rows,
    show(probabilities) {
      const best = Math.max(...probabilities);
      probabilities.forEach((p, k) => {
        fills[k].style.width = `${100 * p}%`;
        numbers[k].textContent = `${Math.round(100 * p)} %`;
        rows[k].classList.toggle("best", p === best);
        rows[k].setAttribute("aria-label", `${classes[k]}: ${(100 * p).toFixed(1)} percent; open how this output is made`);
      });
    },
  };
}
