// Everything that a run is made of, as the address's hash, and back.
//
//   data=digits&network=conv 8 3x3|relu|dense 10&optimizer=adam&rate=0.01;120:0.001&batch=32&l2=0&seed=0
//
// rate is a schedule: the first rate, then STEP:RATE for every change. hide=a,b leaves controls away.
import { NetworkError, format, parse } from "./network.js";

export const OPTIMIZERS = ["sgd", "momentum", "adam"]; // of optimizers.js
export const RATES = [1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001];
export const BATCHES = [8, 16, 32, 64, 128];
export const DECAYS = [0, 0.0001, 0.001, 0.01, 0.1];
export const DEVICES = ["wasm", "webgpu"];
export const HIDEABLE = [
  "data", "network", "optimizer", "rate", "batch", "l2", "seed", "device", "start",
  "curves", "confusion", "mistakes", "looking", "own", "link",
];

const DEFAULTS = {
  network: "conv 8 3x3 | batch_norm | relu | max_pool 2 | conv 16 3x3 | batch_norm | relu | max_pool 2 | dense 10",
  optimizer: "adam",
  rate: [[0, 0.01]],
  batch: 32,
  l2: 0,
  seed: 0,
  device: "wasm",
  start: "seed",
  hide: [],
};

// The rate of a step under a schedule.
export function rateAt(schedule, step) {
  return schedule.findLast(([from]) => from <= step)[1];
}

// The schedule with another rate from a step on.
export function withRate(schedule, step, rate) {
  const before = schedule.filter(([from]) => from < step);
  if (before.length && before.at(-1)[1] === rate) return before;
  return [...before, [step, rate]];
}

export function write(config) {
  const rate = config.rate.map(([from, value], i) => (i ? `${from}:${value}` : `${value}`)).join(";");
  const fields = {
    data: config.data,
    network: format(parse(config.network)).replaceAll(" | ", "|"),
    optimizer: config.optimizer,
    rate,
    batch: config.batch,
    l2: config.l2,
    seed: config.seed,
    device: config.device,
  };
  if (config.start !== "seed") fields.start = config.start;
  if (config.hide.length) fields.hide = config.hide.join(",");
  return new URLSearchParams(fields).toString().replaceAll("%7C", "|").replaceAll("%2C", ",").replaceAll("%3B", ";").replaceAll("%3A", ":");
}

// The configuration of a hash, defaults where it is silent or wrong: [config, complaints].
//   defaults: of this page, taken before those above.
export function read(hash, datasets, defaults = {}) {
  const config = { data: datasets[0], ...structuredClone(DEFAULTS), ...defaults };
  const complaints = [];
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const reader = Object.hasOwn(READERS, name) ? READERS[name] : null;
    const found = reader ? reader(value, datasets) : undefined;
    if (found === undefined) complaints.push(reader ? `${name}=${clip(value)}` : clip(name));
    else config[name] = found;
  }
  return [config, complaints];
}

const clip = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);
const oneOf = (choices) => (value) => (choices.includes(value) ? value : undefined);
const between = (least, most, whole) => (text) => {
  const value = Number(text);
  const fits = text.trim() !== "" && value >= least && value <= most && (!whole || Number.isInteger(value));
  return fits ? value : undefined;
};

const readRate = between(1e-6, 1e4, false);
const readStep = between(1, 1e9, true);

const READERS = {
  data: (value, datasets) => oneOf(datasets)(value),
  network(value) {
    try {
      return format(parse(value));
    } catch (error) {
      if (error instanceof NetworkError) return undefined;
      throw error;
    }
  },
  optimizer: oneOf(OPTIMIZERS),
  rate(value) {
    const schedule = [];
    for (const [i, part] of value.split(";").entries()) {
      const [step, rate] = i ? part.split(":") : ["0", part];
      const found = [i ? readStep(step) : 0, readRate(rate ?? "")];
      if (found.includes(undefined) || (i && found[0] <= schedule.at(-1)[0])) return undefined;
      schedule.push(found);
    }
    return schedule;
  },
  batch: between(1, 256, true),
  l2: between(0, 10, false),
  seed: between(0, 9999, true),
  device: oneOf(DEVICES),
  start: oneOf(["seed", "checkpoint"]),
  hide(value) {
    const names = value.split(",").filter(Boolean);
    return names.every((name) => HIDEABLE.includes(name)) ? names : undefined;
  },
};
