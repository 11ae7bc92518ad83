// Data sets: small images with labels. Pixels are bytes [n, h, w, c], the training examples first.
import { numpy as np } from "@jax-js/jax";

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A data set of the page's JSON, see cnn_jax/playground/datasets.py.
export async function decode(embedded) {
  const [pixels, labels] = await Promise.all([inflate(embedded.images), inflate(embedded.labels)]);
  return { ...embedded, pixels, labels };
}

export async function floats(text) {
  return new Float32Array((await inflate(text)).buffer);
}

// [c, h, w], as the network takes its images.
export function imageShape({ shape: [height, width, channels] }) {
  return [channels, height, width];
}

// One image as floats in 0..1, [c, h, w].
export function image({ pixels, shape: [height, width, channels] }, index) {
  const area = height * width;
  const found = new Float32Array(channels * area);
  for (let p = 0; p < area; p++) {
    for (let c = 0; c < channels; c++) found[c * area + p] = pixels[(index * area + p) * channels + c] / 255;
  }
  return found;
}

// Images and one-hot answers as jax-js arrays.
export function batch(dataset, indices) {
  return [
    images(indices.map((index) => image(dataset, index)), imageShape(dataset)),
    oneHot(indices.map((index) => dataset.labels[index]), dataset.classes.length),
  ];
}

export function images(list, shape) {
  const size = shape.reduce((a, b) => a * b);
  const all = new Float32Array(list.length * size);
  list.forEach((each, i) => all.set(each, i * size));
  return np.array(all).reshape([list.length, ...shape]);
}

export function oneHot(labels, classes) {
  const all = new Float32Array(labels.length * classes);
  labels.forEach((label, i) => (all[i * classes + label] = 1));
  return np.array(all).reshape([labels.length, classes]);
}

export function testIndices({ train, count }) {
  return Array.from({ length: count - train }, (_, i) => train + i);
}
