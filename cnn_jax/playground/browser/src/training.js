// The training step and the other compiled functions of one network.
import { jit, numpy as np, random, tree, valueAndGrad } from "@jax-js/jax";
import { apply, crossEntropy, init } from "./model.js";
import { OPTIMIZERS } from "./optimizers.js";

// What stands at the start of a run: {variables, optimizer}.
export function start(plan, optimizer, seed, weights = null) {
  const variables = weights ?? init(plan, seed);
  return { variables, moments: OPTIMIZERS[optimizer].init(variables.params) };
}

// step(state, pixels, answers, key, rate, decay) -> [loss, state]. Uses up its arguments.
// pixels [n, c, h, w] in 0..1; answers one-hot; decay: L2 on the kernels.
export function createStep(plan, optimizer, normalize) {
  return jit(({ variables: { params, stats }, moments }, pixels, answers, key, rate, decay) => {
    const loss = (params) => {
      const [logits, updated] = apply(plan, { params, stats }, normalize(pixels), { train: true, key });
      return [crossEntropy(logits, answers), updated];
    };
    const [[value, updated], gradients] = valueAndGrad(loss, { hasAux: true })(tree.ref(params));
    for (const [name, own] of Object.entries(gradients)) {
      if (own.kernel) own.kernel = own.kernel.add(params[name].kernel.ref.mul(decay.ref));
    }
    decay.dispose();
    const [moved, next] = OPTIMIZERS[optimizer].update(gradients, moments, params, rate.ref);
    rate.dispose();
    return [value, { variables: { params: moved, stats: updated }, moments: next }];
  });
}

// pixels -> (pixels - mean) / std, as a function that jit can trace.
export function normalizer({ mean, std }) {
  const column = (values) => np.array(values).reshape([1, -1, 1, 1]);
  return (pixels) => pixels.sub(column(mean)).div(column(std));
}

export function keyOf(seed, step) {
  return random.key(seed * 100003 + step);
}

// logits(variables, pixels), and every layer's output with them: [logits, outputs].
export function createForward(plan, normalize) {
  return jit((variables, pixels) => apply(plan, variables, normalize(pixels))[0]);
}

export function createActivations(plan, normalize) {
  return jit((variables, pixels) => {
    const outputs = [];
    const [logits, stats] = apply(plan, variables, normalize(pixels), { outputs });
    logits.dispose();
    tree.dispose(stats);
    return outputs;
  });
}

