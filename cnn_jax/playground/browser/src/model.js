// A network as two pure functions over jax-js: init(key) -> variables, apply(variables, x) -> logits.
//
// Arrays are counted by hand: a function owns its arguments and uses each up once; `.ref` and
// tree.ref keep what is used again. Images are [n, c, h, w], kernels [out, in, h, w].
// variables: {params: {layer: {...}}, stats: {layer: {mean, variance}}}, stats of batch norms alone.
import { lax, nn, numpy as np, random, tree } from "@jax-js/jax";
import { EPSILON, paddingBefore } from "./network.js";

const MOMENTUM = 0.9; // of their running averages

const activations = {
  relu: nn.relu,
  leaky_relu: (x) => nn.leakyRelu(x, 0.01),
  elu: nn.elu,
  gelu: (x) => nn.gelu(x, { approximate: false }),
  silu: nn.silu,
  sigmoid: nn.sigmoid,
  tanh: np.tanh,
};

// Variables of a planned network: He et al. 2015 for what a rectifier follows, zero biases.
export function init(plan, seed) {
  const params = {};
  const stats = {};
  plan.forEach((layer, i) => {
    // a key a layer, so that the layers in front of an edit keep their first weights
    const key = random.key(seed * 1000 + i);
    const [c] = layer.input;
    if (layer.kind === "conv") {
      const shape = [layer.features, c, layer.size, layer.size];
      params[layer.name] = { kernel: normal(key, shape, c * layer.size ** 2), bias: np.zeros([layer.features]) };
    } else if (layer.kind === "dense") {
      const inputs = layer.input.reduce((a, b) => a * b);
      params[layer.name] = { kernel: normal(key, [inputs, layer.features], inputs), bias: np.zeros([layer.features]) };
    } else {
      key.dispose();
      if (layer.kind === "batch_norm") {
        params[layer.name] = { scale: np.ones([c]), bias: np.zeros([c]) };
        stats[layer.name] = { mean: np.zeros([c]), variance: np.ones([c]) };
      }
    }
  });
  return { params, stats };
}

function normal(key, shape, inputs) {
  return random.normal(key, shape).mul(Math.sqrt(2 / inputs));
}

// The variables of these layers alone, counted once more.
export function pick({ params, stats }, plan) {
  const those = (all) =>
    Object.fromEntries(plan.filter(({ name }) => name in all).map(({ name }) => [name, tree.ref(all[name])]));
  return { params: those(params), stats: those(stats) };
}

// Runs the layers of a plan, or of its first ones.
//   train: batch statistics and dropout, which takes the key.
//   outputs: a list that every layer's output is appended to.
// Returns [y, stats], the batch norms' new running statistics.
export function apply(plan, { params, stats }, x, { train = false, key = null, outputs = null } = {}) {
  const updated = {};
  for (const layer of plan) {
    const own = params[layer.name];
    if (layer.kind === "conv") x = convolve(layer, own, x);
    else if (layer.kind === "dense") x = np.dot(x.reshape([x.shape[0], -1]), own.kernel).add(own.bias);
    else if (layer.kind === "batch_norm") [x, updated[layer.name]] = batchNorm(own, stats[layer.name], x, train);
    else if (layer.kind === "max_pool") x = pool(np.max, layer, x);
    else if (layer.kind === "avg_pool") x = pool(np.mean, layer, x);
    else if (layer.kind === "global_avg_pool") x = np.mean(x, [2, 3]);
    else if (layer.kind === "flatten") x = x.reshape([x.shape[0], -1]);
    else if (layer.kind === "dropout") {
      if (train && layer.rate > 0) [x, key] = dropout(layer, x, key);
    } else x = activations[layer.kind](x);
    outputs?.push(x.ref);
  }
  key?.dispose();
  return [x, updated];
}

function convolve({ stride, padding }, { kernel, bias }, x) {
  const [before, size] = [paddingBefore({ size: kernel.shape[2], padding }), kernel.shape[2]];
  const pair = padding === "same" ? [before, size - 1 - before] : [0, 0];
  const y = lax.convGeneralDilated(x, kernel, [stride, stride], [pair, pair]);
  return y.add(bias.reshape([1, -1, 1, 1]));
}

function pool(reduce, { size, stride }, x) {
  return lax.reduceWindow(x, (window) => reduce(window), [1, 1, size, size], [1, 1, stride, stride]);
}

function batchNorm({ scale, bias }, running, x, train) {
  const maps = x.shape.length === 4;
  const over = maps ? [0, 2, 3] : [0];
  const spread = (v) => (maps ? v.reshape([1, -1, 1, 1]) : v);
  let { mean, variance } = running;
  let updated = { mean: mean.ref, variance: variance.ref };
  if (train) {
    const now = np.mean(x.ref, over);
    const spreadNow = np.mean(np.square(x.ref.sub(spread(now.ref))), over);
    tree.dispose(updated);
    const follow = (old, fresh) => old.mul(MOMENTUM).add(lax.stopGradient(fresh).mul(1 - MOMENTUM));
    updated = { mean: follow(mean, now.ref), variance: follow(variance, spreadNow.ref) };
    mean = now;
    variance = spreadNow;
  }
  const factor = scale.div(np.sqrt(variance.add(EPSILON)));
  const shift = bias.sub(mean.mul(factor.ref));
  return [x.mul(spread(factor)).add(spread(shift)), updated];
}

function dropout({ rate }, x, key) {
  const [mine, rest] = np.split(random.split(key, 2), 2).map((k) => k.reshape([2]));
  const kept = random.bernoulli(mine, 1 - rate, x.shape).astype(np.float32);
  return [x.mul(kept.div(1 - rate)), rest];
}

// Mean over the batch of the cross entropy; answers is one-hot.
export function crossEntropy(logits, answers) {
  return np.mean(np.sum(nn.logSoftmax(logits).mul(answers), -1)).neg();
}
