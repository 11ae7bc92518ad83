// Data sets: small images with labels. Pixels are bytes [n, h, w, c], the training examples first.

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

// Images one behind the other.
export function stacked(list) {
  const all = new Float32Array(list.length * list[0].length);
  list.forEach((each, i) => all.set(each, i * each.length));
  return all;
}

export function testIndices({ train, count }) {
  return Array.from({ length: count - train }, (_, i) => train + i);
}
