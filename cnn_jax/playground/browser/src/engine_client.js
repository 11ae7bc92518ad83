// Asks the worker that computes, whose code is inside the bundle: await compute("logits", {...}).
import source from "engine";

const waiting = new Map(); // number -> {resolve, reject}
let worker = null;
let asked = 0;

function begin() {
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  worker = new Worker(address);
  worker.addEventListener("message", ({ data: { number, found, error } }) => {
    const { resolve, reject } = waiting.get(number);
    waiting.delete(number);
    if (error === undefined) resolve(found);
    else reject(new Error(error));
  });
  worker.addEventListener("error", (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message || "the browser runs no worker"));
    waiting.clear();
  });
}

// What a command of engine.js gives; null where its run was closed meanwhile.
export function compute(command, given) {
  if (!worker) begin();
  const number = ++asked;
  return new Promise((resolve, reject) => {
    waiting.set(number, { resolve, reject });
    worker.postMessage({ number, command, given });
  });
}
