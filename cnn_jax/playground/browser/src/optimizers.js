// Optimizers as pairs of pure functions: init(params) -> state,
// update(gradients, state, params, rate) -> [params, state]. All arguments are used up.
import { numpy as np, tree } from "@jax-js/jax";

const zeros = (params) => tree.map((p) => np.zeros(p.shape), params);

// Tells the arrays of several trees apart leaf by leaf: f(...leaves) -> a list; returns trees.
function mapSeveral(count, f, first, ...rest) {
  const [leaves, structure] = tree.flatten(first);
  const others = rest.map((each) => tree.flatten(each)[0]);
  const results = leaves.map((leaf, i) => f(leaf, ...others.map((other) => other[i])));
  return Array.from({ length: count }, (_, k) => tree.unflatten(structure, results.map((r) => r[k])));
}

const sgd = {
  init: () => ({}),
  update: (gradients, state, params, rate) => [
    tree.map((g, p) => p.sub(g.mul(rate.ref)), gradients, params),
    state,
  ],
};

// Sutskever et al. 2013, with Polyak's momentum.
const momentum = {
  init: (params) => ({ velocity: zeros(params) }),
  update(gradients, { velocity }, params, rate) {
    const [updated, moved] = mapSeveral(
      2,
      (g, v, p) => {
        const next = v.mul(0.9).add(g);
        return [p.sub(next.ref.mul(rate.ref)), next];
      },
      gradients,
      velocity,
      params,
    );
    return [updated, { velocity: moved }];
  },
};

// Kingma and Ba 2015, algorithm 1; powers of the decay rates stand in for the step's number.
const adam = {
  init: (params) => ({ first: zeros(params), second: zeros(params), powers: np.ones([2]) }),
  update(gradients, { first, second, powers }, params, rate) {
    const next = powers.mul(np.array([0.9, 0.999]));
    const [b1, b2] = np.split(next.ref, 2);
    const step = rate.ref.mul(np.sqrt(np.subtract(1, b2))).div(np.subtract(1, b1)); // [1]
    const [updated, m, v] = mapSeveral(
      3,
      (g, m, v, p) => {
        m = m.mul(0.9).add(g.ref.mul(0.1));
        v = v.mul(0.999).add(np.square(g).mul(0.001));
        const move = m.ref.div(np.sqrt(v.ref).add(1e-8)).mul(step.ref.reshape(p.shape.map(() => 1)));
        return [p.sub(move), m, v];
      },
      gradients,
      first,
      second,
      params,
    );
    step.dispose();
    return [updated, { first: m, second: v, powers: next }];
  },
};

export const OPTIMIZERS = { sgd, momentum, adam };
