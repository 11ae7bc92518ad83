// One run of one network: how far it is, a step at a time, and what it has come to on the test
// images. Its arrays are the engine's.
import { rateAt } from "./address.js";
import { image, imageShape, stacked, testIndices } from "./datasets.js";
import { compute } from "./engine_client.js";
import { parse, plan } from "./network.js";
import { batchIndices } from "./random.js";

export class Diverged extends Error {}

let opened = 0;

// A run at its first step; a NetworkError where the network does not fit the data.
export async function open(config, dataset, weights = null) {
  const layers = plan(parse(config.network), imageShape(dataset), dataset.classes.length);
  const id = ++opened;
  const { mean, std, classes } = dataset;
  await compute("open", { id, plan: layers, optimizer: config.optimizer, seed: config.seed, weights, dataset: { mean, std, classes: classes.length } });
  return {
    id,
    config,
    dataset,
    plan: layers,
    step: 0,
    losses: [], // of step 0, 1, ...
    tests: [], // {step, loss, accuracy}
    test: null, // {step, predictions, confusion}
    turn: Promise.resolve(), // the end of the update or test that was asked for last
    closed: false,
  };
}

// Ends a run; what is asked of it then gives null.
export function close(session) {
  session.closed = true;
  compute("close", { id: session.id });
}

// What the engine finds for a run.
export const ask = (session, command, given) => compute(command, { id: session.id, ...given });

// Updates and tests follow one another, whoever asks, so that a test is of one step's weights.
const inTurn = (session, work) => (session.turn = session.turn.catch(() => {}).then(() => work(session)));

// One update. Throws Diverged, one step back, where the loss is lost.
export const advance = (session) => inTurn(session, update);

// Each test image once: loss, accuracy and confusion, confusion[truth][answer]. Gives whether it is new.
export const evaluate = (session, testImages) => inTurn(session, () => measure(session, testImages));

async function update(session) {
  const { config, dataset, step } = session;
  const indices = batchIndices(dataset.train, config.batch, step, config.seed);
  const found = await ask(session, "step", {
    pixels: stacked(indices.map((index) => image(dataset, index))),
    labels: indices.map((index) => dataset.labels[index]),
    ...{ seed: config.seed, step, rate: rateAt(config.rate, step), l2: config.l2 },
    most: 100 * Math.log(dataset.classes.length), // of guessing a hundred times: nothing comes back from there
  });
  if (!found || session.closed) return;
  const { loss, taken, back } = found;
  if (taken) {
    session.step += 1;
    session.losses.push(loss);
    return;
  }
  if (back) {
    session.step -= 1;
    session.losses.pop();
    session.tests = session.tests.filter(({ step }) => step <= session.step);
  }
  throw new Diverged(
    `The loss became ${Number.isFinite(loss) ? loss.toPrecision(3) : loss} at step ${step}: the learning rate ` +
      `${rateAt(config.rate, session.step)} is too large. Stopped, one step back; take a smaller rate and go on.`,
  );
}

// The logits of a list of images [c, h, w], a Float32Array an image; null where the run has ended.
export async function logitsOf(session, list) {
  const classes = session.dataset.classes.length;
  const logits = await ask(session, "logits", { pixels: stacked(list) });
  return logits && list.map((_, k) => logits.slice(k * classes, (k + 1) * classes));
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

async function measure(session, testImages) {
  const { dataset, step } = session;
  if (session.test?.step === step) return false;
  const logits = await logitsOf(session, testImages);
  if (!logits || session.closed) return false;
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
  return true;
}
