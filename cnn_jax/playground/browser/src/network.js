// A network as text, as layers, and what each layer makes of its input's shape. No arrays here.

// Kind -> what stands behind its name in the text. Numbers have a default, or must be given (null).
// "size" is written 3x3 or 3; the others as `name value`, the first one bare.
export const KINDS = {
  conv: { features: [null, 1, 512], size: [3, 1, 11], stride: [1, 1, 4], padding: ["same", "valid"] },
  batch_norm: {},
  relu: {},
  leaky_relu: {},
  elu: {},
  gelu: {},
  silu: {},
  sigmoid: {},
  tanh: {},
  max_pool: { size: [2, 1, 8], stride: [undefined, 1, 8] },
  avg_pool: { size: [2, 1, 8], stride: [undefined, 1, 8] },
  global_avg_pool: {},
  dropout: { rate: [0.5, 0, 0.95] },
  flatten: {},
  dense: { features: [null, 1, 4096] },
};
export const ACTIVATIONS = ["relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh"];
const BARE = { conv: ["features", "size"], max_pool: ["size"], avg_pool: ["size"], dropout: ["rate"], dense: ["features"] };
const ALIASES = { convolution: "conv", bn: "batch_norm", batchnorm: "batch_norm", maxpool: "max_pool", avgpool: "avg_pool", fc: "dense", linear: "dense" };

// What a page still trains: multiply-adds of one example, and parameters.
const MOST_MACS = 2e7;
const MOST_PARAMETERS = 1e6;
const MOST_LAYERS = 40;

export const EPSILON = 1e-5; // of the batch norms

// Zeros in front of a map: "same" keeps the size at stride 1, an odd zero goes behind, as in cnn_jax.
export const paddingBefore = ({ size, padding }) => (padding === "same" ? Math.floor((size - 1) / 2) : 0);

export class NetworkError extends Error {}

// "conv 8 3x3 | relu | dense 10" -> [{kind, features, ...}, ...]; a NetworkError names what is wrong.
export function parse(text) {
  const parts = text.split(/[|\n]/).map((part) => part.trim());
  if (parts.every((part) => !part)) throw new NetworkError("The network is empty; write at least “dense 10”.");
  const layers = parts.flatMap((part, i) => (part ? [parseLayer(part, i + 1)] : []));
  if (layers.length > MOST_LAYERS) {
    throw new NetworkError(`${layers.length} layers are more than the ${MOST_LAYERS} that fit on the page.`);
  }
  return layers;
}

function parseLayer(text, number) {
  const fail = (why) => {
    throw new NetworkError(`Layer ${number}, “${text}”: ${why}`);
  };
  const [name, ...words] = text.toLowerCase().split(/\s+/);
  const kind = ALIASES[name] ?? name;
  const options = Object.hasOwn(KINDS, kind) ? KINDS[kind] : null;
  if (!options) fail(`there is no layer “${name}”; take ${Object.keys(KINDS).join(", ")}.`);
  const layer = { kind };
  const bare = [...(BARE[kind] ?? [])];
  while (words.length) {
    let word = words.shift();
    if (word === "same" || word === "valid") {
      if (!options.padding) fail(`${kind} has no padding.`);
      layer.padding = word;
      continue;
    }
    let option = /^\d+x\d+$/.test(word) ? "size" : bare[0];
    if (Object.hasOwn(options, word)) {
      option = word;
      word = words.shift();
      if (word === undefined) fail(`a value is missing behind “${option}”.`);
    }
    if (!option || !Object.hasOwn(options, option) || option in layer) fail(`“${word}” has no meaning here.`);
    bare.splice(0, bare.indexOf(option) + 1);
    layer[option] = option === "padding" ? choice(word, options.padding, fail) : number_(word, option, options[option], fail);
  }
  for (const [option, range] of Object.entries(options)) {
    if (option in layer) continue;
    if (option === "padding") layer.padding = range[0];
    else if (range[0] === null) fail(`say how many, as in “${kind} 10”.`);
    else layer[option] = range[0] ?? layer.size; // a pooling's stride is its size
  }
  return layer;
}

function choice(word, choices, fail) {
  if (!choices.includes(word)) fail(`“${word}” is neither ${choices.join(" nor ")}.`);
  return word;
}

function number_(word, option, [, least, most], fail) {
  const square = /^(\d+)x(\d+)$/.exec(word);
  if (square && square[1] !== square[2]) fail("only square windows are known.");
  const value = Number(square ? square[1] : word);
  const whole = option !== "rate";
  if (!Number.isFinite(value) || (whole && !Number.isInteger(value))) fail(`“${word}” is no ${whole ? "whole " : ""}number.`);
  if (value < least || value > most) fail(`${option} must lie in ${least} to ${most}, not ${value}.`);
  return value;
}

// The text of layers, in the shortest form that gives them again.
export function format(layers) {
  return layers.map(formatLayer).join(" | ");
}

export function formatLayer(layer) {
  const { kind } = layer;
  if (kind === "conv") {
    const stride = layer.stride === 1 ? "" : ` stride ${layer.stride}`;
    return `conv ${layer.features} ${layer.size}x${layer.size}${stride}${layer.padding === "same" ? "" : " valid"}`;
  }
  if (kind === "max_pool" || kind === "avg_pool") {
    return `${kind} ${layer.size}${layer.stride === layer.size ? "" : ` stride ${layer.stride}`}`;
  }
  if (kind === "dropout") return `dropout ${layer.rate}`;
  if (kind === "dense") return `dense ${layer.features}`;
  return kind;
}

// Layers -> the same with name, input and output shapes ([c, h, w] or [n]), parameters and macs.
// A NetworkError names the first layer that does not fit.
export function plan(layers, inputShape, classes) {
  let shape = inputShape;
  const planned = layers.map((layer, i) => {
    const fail = (why) => {
      throw new NetworkError(`Layer ${i + 1}, “${formatLayer(layer)}”: ${why}`);
    };
    const found = { ...layer, index: i, name: `${i + 1}_${layer.kind}`, input: shape, ...shapes(layer, shape, fail) };
    shape = found.output;
    return found;
  });
  const last = planned.at(-1);
  if (shape.length !== 1 || shape[0] !== classes) {
    const has = shape.length === 1 ? `${shape[0]} numbers` : `${shape.join("×")} maps`;
    throw new NetworkError(
      `The network ends in “${formatLayer(last)}” with ${has}, but the data has ${classes} classes; end it with “dense ${classes}”.`,
    );
  }
  const macs = planned.reduce((sum, layer) => sum + layer.macs, 0);
  const parameters = planned.reduce((sum, layer) => sum + layer.parameters, 0);
  if (macs > MOST_MACS || parameters > MOST_PARAMETERS) {
    throw new NetworkError(
      `The network takes ${thousands(macs)} multiply-adds an image and has ${thousands(parameters)} parameters; ` +
        `the page trains up to ${thousands(MOST_MACS)} and ${thousands(MOST_PARAMETERS)}.`,
    );
  }
  return planned;
}

function shapes(layer, shape, fail) {
  const { kind, features, size, stride } = layer;
  const count = (s) => s.reduce((a, b) => a * b, 1);
  const none = { parameters: 0, macs: 0 };
  if (["conv", "max_pool", "avg_pool", "global_avg_pool"].includes(kind) && shape.length !== 3) {
    fail("it needs maps, but a dense or flattened layer comes before it; move it forward.");
  }
  const [c, height, width] = shape;
  if (kind === "conv") {
    const out = (n) => (layer.padding === "same" ? Math.ceil(n / stride) : Math.floor((n - size) / stride) + 1);
    if (layer.padding === "valid" && Math.min(height, width) < size) {
      fail(`its window is larger than the ${height}×${width} that comes in.`);
    }
    const output = [features, out(height), out(width)];
    const kernel = size * size * c * features;
    return { output, parameters: kernel + features, macs: kernel * output[1] * output[2] };
  }
  if (kind === "max_pool" || kind === "avg_pool") {
    if (Math.min(height, width) < size) fail(`its window is larger than the ${height}×${width} that comes in.`);
    const out = (n) => Math.floor((n - size) / stride) + 1;
    return { output: [c, out(height), out(width)], ...none };
  }
  if (kind === "global_avg_pool") return { output: [c], ...none };
  if (kind === "flatten") return { output: [count(shape)], ...none };
  if (kind === "dense") {
    const inputs = count(shape);
    return { output: [features], parameters: (inputs + 1) * features, macs: inputs * features };
  }
  if (kind === "batch_norm") return { output: shape, parameters: 2 * c, macs: 0 };
  return { output: shape, ...none };
}

export function thousands(n) {
  return Math.round(n).toLocaleString("en-US");
}

// Layers for another number of classes: the last dense layer follows where it had the old one.
export function withClasses(layers, before, after) {
  const last = layers.at(-1);
  if (last?.kind !== "dense" || last.features !== before) return layers;
  return [...layers.slice(0, -1), { ...last, features: after }];
}
