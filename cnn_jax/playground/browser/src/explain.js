// Looking into the trained network: what an answer depends on, and images made by gradients.
//
// Every function takes the run and an image [c, h, w] in 0..1; those that work step by step are
// asynchronous generators that give a picture after each step.
import { imageShape } from "./datasets.js";
import { ask, logitsOf } from "./session.js";

// The value of an objective, "score" or "loss", and its gradient by the pixels; nulls where the run has ended.
const gradient = async (session, objective, pixels, target) => (await ask(session, "gradient", { objective, pixels, target })) ?? [null, null];

// Simonyan et al. 2014: the gradient of the class's score, [c, h, w].
export async function saliency(session, pixels, target) {
  const [, slope] = await gradient(session, "score", pixels, target);
  return slope;
}

// Zeiler and Fergus 2014: by how much the class's score falls where a square of grey covers the image.
// Gives {heat [h, w], row} after every row of places.
export async function* occlusion(session, pixels, target) {
  const [channels, height, width] = imageShape(session.dataset);
  const reach = Math.max(1, Math.round(Math.min(height, width) / 8)); // the square is 2 reach + 1 wide
  const whole = (await logitsOf(session, [pixels]))?.[0];
  const heat = new Float32Array(height * width);
  const grey = session.dataset.mean;
  for (let y = 0; y < height; y++) {
    const covered = Array.from({ length: width }, (_, x) => {
      const image = pixels.slice();
      for (let c = 0; c < channels; c++) {
        for (let v = Math.max(0, y - reach); v <= Math.min(height - 1, y + reach); v++) {
          for (let u = Math.max(0, x - reach); u <= Math.min(width - 1, x + reach); u++) {
            image[(c * height + v) * width + u] = grey[c];
          }
        }
      }
      return image;
    });
    const logits = await logitsOf(session, covered);
    if (!logits) return;
    logits.forEach((each, x) => (heat[y * width + x] = whole[target] - each[target]));
    yield { heat, row: y, side: 2 * reach + 1 };
  }
}

// Simonyan et al. 2014, section 2: ascent on the class's score from grey, against the image's norm.
// Gives {image, score}. Adam on the pixels, which stay in 0..1.
export async function* ascent(session, target, steps = 60) {
  const shape = imageShape(session.dataset);
  const area = shape[1] * shape[2];
  const { mean } = session.dataset;
  const middle = Float32Array.from({ length: shape[0] * area }, (_, i) => mean[Math.floor(i / area)]);
  let image = middle.slice();
  const move = adam(image.length, 0.05);
  for (let step = 0; step < steps; step++) {
    const [score, slope] = await gradient(session, "score", image, target);
    if (!slope) return;
    const uphill = smooth(slope, shape).map((g, i) => -g + 0.5 * (image[i] - middle[i]));
    image = clipped(move(image, uphill));
    yield { image, score, step: step + 1, steps };
  }
}

// Madry et al. 2018: projected gradient ascent on the loss within epsilon of each pixel.
// Gives {image, difference}, the image itself first.
export async function* adversarial(session, pixels, label, epsilon, steps = 10) {
  let image = pixels.slice();
  yield { image, difference: image.map(() => 0), step: 0, steps };
  const stride = (2.5 * epsilon) / steps;
  for (let step = 0; step < steps; step++) {
    const [, slope] = await gradient(session, "loss", image, label);
    if (!slope) return;
    image = image.map((value, i) => {
      const moved = value + stride * Math.sign(slope[i]);
      return Math.min(Math.max(moved, pixels[i] - epsilon, 0), pixels[i] + epsilon, 1);
    });
    yield { image, difference: image.map((value, i) => value - pixels[i]), step: step + 1, steps };
  }
}

// Mahendran and Vedaldi 2015: an image whose activation at a layer is that of the given image.
// Gives {image, error}, the squared error relative to the activation's square.
export async function* inversion(session, pixels, layer, steps = 120) {
  const goal = await ask(session, "encode", { layer, pixels });
  let image = new Float32Array(pixels.length).fill(0.5);
  const move = adam(image.length, 0.05);
  for (let step = 0; goal && step < steps; step++) {
    const found = await ask(session, "distance", { layer, pixels: image, goal });
    if (!found) return;
    const [error, slope] = found;
    image = clipped(move(image, slope));
    yield { image, error, step: step + 1, steps };
  }
}

// Kingma and Ba 2015 on plain numbers: f(values, gradient) -> values.
function adam(count, rate) {
  const first = new Float32Array(count);
  const second = new Float32Array(count);
  let step = 0;
  return (values, slope) => {
    step += 1;
    return values.map((value, i) => {
      first[i] = 0.9 * first[i] + 0.1 * slope[i];
      second[i] = 0.99 * second[i] + 0.01 * slope[i] ** 2;
      const direction = first[i] / (1 - 0.9 ** step) / (Math.sqrt(second[i] / (1 - 0.99 ** step)) + 1e-8);
      return value - rate * direction;
    });
  };
}

const clipped = (image) => image.map((value) => Math.min(Math.max(value, 0), 1));

// A light blur, so that neighbouring pixels agree: the weights 1 2 1 in both directions.
function smooth(values, [, height, width]) {
  return values.map((_, i) => {
    const x = i % width;
    const y = Math.floor(i / width) % height;
    let sum = 0;
    let weight = 0;
    for (let dy = Math.max(-1, -y); dy <= Math.min(1, height - 1 - y); dy++) {
      for (let dx = Math.max(-1, -x); dx <= Math.min(1, width - 1 - x); dx++) {
        const w = (2 - Math.abs(dy)) * (2 - Math.abs(dx));
        sum += w * values[i + dy * width + dx];
        weight += w;
      }
    }
    return sum / weight;
  });
}
