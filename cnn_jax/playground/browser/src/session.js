// One run of one network: its state, a step at a time, and what it has come to on the test images.
import { numpy as np, tree } from "@jax-js/jax";
import { rateAt } from "./address.js";
import { batch, imageShape, images, testIndices } from "./datasets.js";
import { parse, plan } from "./network.js";
import { batchIndices } from "./random.js";
import { createActivations, createForward, createStep, keyOf, normalizer, start } from "./training.js";

export class Diverged extends Error {}

// A run at its first step; a NetworkError where the network does not fit the data.
export function open(config, dataset, weights = null) {
  const layers = plan(parse(config.network), imageShape(dataset), dataset.classes.length);
  const normalize = normalizer(dataset);
  return {
    config,
    dataset,
    plan: layers,
    normalize,
    run: createStep(layers, config.optimizer, normalize),
    forward: createForward(layers, normalize),
    activations: createActivations(layers, normalize),
    state: start(layers, config.optimizer, config.seed, weights),
    previous: null,
    step: 0,
    losses: [], // of step 0, 1, ...
    tests: [], // {step, loss, accuracy}
    test: null, // {step, logits, predictions, confusion}
    busy: false,
    closed: false,
  };
}

// Ends a run: its arrays go when no step holds them any more.
export function close(session) {
  session.closed = true;
  if (!session.busy) release(session);
}

function release(session) {
  tree.dispose(session.state);
  tree.dispose(session.previous);
  session.state = session.previous = null;
}

// One update. Throws Diverged, one step back, where the loss is lost.
export async function advance(session) {
  const { config, dataset, step } = session;
  session.busy = true;
  try {
    const indices = batchIndices(dataset.train, config.batch, step, config.seed);
    const [loss, next] = session.run(
      tree.ref(session.state),
      ...batch(dataset, indices),
      keyOf(config.seed, step),
      np.array(rateAt(config.rate, step)),
      np.array(config.l2),
    );
    const [value] = await loss.data();
    // a hundred times the loss of guessing: nothing comes back from there
    if (!(value < 100 * Math.log(dataset.classes.length))) {
      tree.dispose(next);
      stepBack(session);
      throw new Diverged(
        `The loss became ${Number.isFinite(value) ? value.toPrecision(3) : value} at step ${step}: the learning rate ` +
          `${rateAt(config.rate, session.step)} is too large. Stopped, one step back; take a smaller rate and go on.`,
      );
    }
    tree.dispose(session.previous);
    session.previous = session.state;
    session.state = next;
    session.step += 1;
    session.losses.push(value);
  } finally {
    session.busy = false;
    if (session.closed) release(session);
  }
}

function stepBack(session) {
  if (!session.previous) return;
  tree.dispose(session.state);
  session.state = session.previous;
  session.previous = null;
  session.step -= 1;
  session.losses.pop();
  session.tests = session.tests.filter(({ step }) => step <= session.step);
}

// The logits of a list of images [c, h, w], a Float32Array an image.
export async function logitsOf(session, list) {
  const classes = session.dataset.classes.length;
  const found = [];
  if (session.closed) return found;
  for (let i = 0; i < list.length; i += 400) {
    const part = list.slice(i, i + 400);
    const logits = session.forward(tree.ref(session.state.variables), images(part, imageShape(session.dataset)));
    const values = await logits.data();
    for (let k = 0; k < part.length; k++) found.push(values.slice(k * classes, (k + 1) * classes));
    if (session.closed) break;
  }
  return found;
}

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (each) => Math.exp(each - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((each) => each / sum);
}

export function argmax(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}

// Each test image once: loss, accuracy and confusion, confusion[truth][answer].
export async function evaluate(session, testImages) {
  const { dataset, step } = session;
  const logits = await logitsOf(session, testImages);
  if (session.closed) return;
  const classes = dataset.classes.length;
  const confusion = Array.from({ length: classes }, () => new Array(classes).fill(0));
  let loss = 0;
  let right = 0;
  const indices = testIndices(dataset);
  const predictions = indices.map((index, i) => {
    const probabilities = softmax(logits[i]);
    const answer = argmax(probabilities);
    const truth = dataset.labels[index];
    confusion[truth][answer] += 1;
    loss -= Math.log(Math.max(probabilities[truth], 1e-38)) / indices.length;
    right += answer === truth;
    return { index, truth, answer, probability: probabilities[answer] };
  });
  session.test = { step, predictions, confusion };
  session.tests = session.tests.filter((each) => each.step !== step);
  session.tests.push({ step, loss, accuracy: right / indices.length });
}
