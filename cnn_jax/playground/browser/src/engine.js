// What computes, in a worker of its own, so that the page answers meanwhile. The arrays of the runs
// live here; the page asks by messages {number, command, given} and gets numbers back.
import { defaultDevice, init, jit, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { apply, crossEntropy, pick } from "./model.js";
import { createActivations, createForward, createStep, keyOf, normalizer, start } from "./training.js";

const runs = new Map(); // id -> {plan, shape, classes, normalize, state, previous, compiled functions}

const AT_ONCE = 400; // images of which the logits are taken, for their memory

const images = (pixels, shape) => np.array(pixels).reshape([-1, ...shape]);

function oneHot(labels, classes) {
  const all = new Float32Array(labels.length * classes);
  labels.forEach((label, i) => (all[i * classes + label] = 1));
  return np.array(all).reshape([labels.length, classes]);
}

// Objectives of an image's logits and the class that is asked about.
const OBJECTIVES = {
  score: (logits, answer) => np.sum(logits.mul(answer)),
  loss: crossEntropy,
};

// A compiled function of a run, made when it is first called for.
function compiled(run, name, make) {
  if (!run.compiled.has(name)) run.compiled.set(name, jit(make));
  return run.compiled.get(name);
}

const commands = {
  // The device that is there: WebAssembly where WebGPU is not.
  async begin({ device }) {
    await init("wasm");
    defaultDevice("wasm");
    if (device !== "webgpu") return "wasm";
    const there = await init("webgpu").catch(() => []);
    if (!there.includes("webgpu")) return "wasm";
    defaultDevice("webgpu");
    return device;
  },

  // A run at its first step. weights: variables as {shape, values}; null: random ones of the seed.
  open({ id, plan, optimizer, seed, weights, dataset }) {
    const normalize = normalizer(dataset);
    runs.set(id, {
      ...{ plan, normalize, shape: plan[0].input, classes: dataset.classes },
      step: createStep(plan, optimizer, normalize),
      forward: createForward(plan, normalize),
      activations: createActivations(plan, normalize),
      state: start(plan, optimizer, seed, weights && { params: variables(weights.params), stats: variables(weights.stats) }),
      previous: null,
      compiled: new Map(),
    });
  },

  close(run, { id }) {
    tree.dispose(run.state);
    tree.dispose(run.previous);
    runs.delete(id);
  },

  // One update: the loss, and whether it was taken. Where it is not below `most`, the run is put one
  // step back instead, if it has one: {loss, taken, back}.
  async step(run, { pixels, labels, seed, step, rate, l2, most }) {
    const given = [images(pixels, run.shape), oneHot(labels, run.classes), keyOf(seed, step), np.array(rate), np.array(l2)];
    const [array, next] = run.step(tree.ref(run.state), ...given);
    const [loss] = await array.data();
    if (loss < most) {
      tree.dispose(run.previous);
      [run.previous, run.state] = [run.state, next];
      return { loss, taken: true };
    }
    tree.dispose(next);
    const back = run.previous !== null;
    if (back) {
      tree.dispose(run.state);
      [run.state, run.previous] = [run.previous, null];
    }
    return { loss, taken: false, back };
  },

  async logits(run, { pixels }) {
    const size = run.shape.reduce((a, b) => a * b);
    const found = new Float32Array((pixels.length / size) * run.classes);
    for (let i = 0; i * size < pixels.length; i += AT_ONCE) {
      const part = images(pixels.slice(i * size, (i + AT_ONCE) * size), run.shape);
      found.set(await run.forward(tree.ref(run.state.variables), part).data(), i * run.classes);
    }
    return found;
  },

  // Of every layer, for one image.
  activations: (run, { pixels }) =>
    Promise.all(run.activations(tree.ref(run.state.variables), images(pixels, run.shape)).map((each) => each.data())),

  // Parameters and running statistics of layers: name of the layer -> name -> values.
  async weights(run, { names }) {
    const { params, stats } = run.state.variables;
    const found = {};
    for (const name of names) {
      found[name] = {};
      for (const [each, array] of Object.entries({ ...params[name], ...stats[name] })) found[name][each] = await array.ref.data();
    }
    return found;
  },

  // An objective's value and its gradient by the pixels.
  async gradient(run, { objective, pixels, target }) {
    const f = compiled(run, objective, (variables, x, answer) =>
      valueAndGrad((x) => OBJECTIVES[objective](apply(run.plan, variables, run.normalize(x))[0], answer))(x),
    );
    const [value, slope] = f(tree.ref(run.state.variables), images(pixels, run.shape), oneHot([target], run.classes));
    return [(await value.data())[0], await slope.data()];
  },

  encode(run, { layer, pixels }) {
    const first = run.plan.slice(0, layer + 1);
    const f = compiled(run, `encode ${layer}`, (variables, x) => apply(first, variables, run.normalize(x))[0]);
    return f(pick(run.state.variables, first), images(pixels, run.shape)).data();
  },

  // How far a layer's activation is from the goal, relative to it, and the gradient by the pixels.
  async distance(run, { layer, pixels, goal }) {
    const first = run.plan.slice(0, layer + 1);
    const f = compiled(run, `distance ${layer}`, (variables, x, goal) =>
      valueAndGrad((x) => {
        const [found] = apply(first, variables, run.normalize(x));
        return np.sum(np.square(found.sub(goal.ref))).div(np.sum(np.square(goal)).add(1e-12));
      })(x),
    );
    const wanted = np.array(goal).reshape([1, ...first.at(-1).output]);
    const [value, slope] = f(pick(run.state.variables, first), images(pixels, run.shape), wanted);
    return [(await value.data())[0], await slope.data()];
  },
};

function variables(tables) {
  const of = (table) => Object.fromEntries(Object.entries(table).map(([name, { shape, values }]) => [name, np.array(values).reshape(shape)]));
  return Object.fromEntries(Object.entries(tables).map(([layer, table]) => [layer, of(table)]));
}

async function answer({ number, command, given }) {
  try {
    const needsNoRun = ["begin", "open"].includes(command);
    const run = runs.get(given.id);
    // of a run that is closed nothing is known any more
    const found = needsNoRun ? await commands[command](given) : run ? await commands[command](run, given) : null;
    postMessage({ number, found });
  } catch (error) {
    postMessage({ number, error: error.message });
  }
}

let queue = Promise.resolve(); // one after the other, also where a device answers late
addEventListener("message", ({ data }) => (queue = queue.then(() => answer(data))));
