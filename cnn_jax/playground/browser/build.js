// Bundles src/main.js and what it imports into ../bundle.js, which the package carries.
// OUTPUT=PATH writes it elsewhere, for the test that compares both.
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(dirname(fileURLToPath(import.meta.url)));
const licence = readFileSync("node_modules/@jax-js/jax/LICENSE", "utf8").trim();

const options = {
  bundle: true,
  minify: true,
  format: "iife", // dynamic imports are bundled too: the page is one file
  target: ["es2022"],
  charset: "ascii",
  legalComments: "inline",
};

// The worker's code, as a text that the page's code begins it from.
const engine = await build({ ...options, entryPoints: ["src/engine.js"], write: false });
const inline = {
  name: "engine",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^engine$/ }, () => ({ path: "engine", namespace: "inline" }));
    onLoad({ filter: /.*/, namespace: "inline" }, () => ({ contents: engine.outputFiles[0].text, loader: "text" }));
  },
};

await build({
  ...options,
  entryPoints: ["src/main.js"],
  outfile: process.env.OUTPUT ?? "../bundle.js",
  plugins: [inline],
  banner: { js: `/* Contains @jax-js/jax 0.1.25.\n\n${licence} */` },
});
