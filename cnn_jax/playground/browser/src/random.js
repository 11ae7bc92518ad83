// Random numbers from a seed, for the order of the examples.

// Mulberry32, a generator of 32 bits: returns f() in 0..1.
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// 0..n-1 in a random order (Fisher and Yates).
export function permutation(n, seed) {
  const random = generator(seed);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// The examples of step `step`: every epoch has an order of its own, and batches run on across epochs.
export function batchIndices(n, size, step, seed) {
  const orders = new Map();
  return Array.from({ length: size }, (_, k) => {
    const at = step * size + k;
    const epoch = Math.floor(at / n);
    if (!orders.has(epoch)) orders.set(epoch, permutation(n, seed * 7919 + epoch));
    return orders.get(epoch)[at % n];
  });
}
