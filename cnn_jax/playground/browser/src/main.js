// Starts the page: reads the embedded data and the address, and mounts the parts.
import { mountControls, mountLink } from "./controls.js";
import { decode } from "./datasets.js";
import { h } from "./dom.js";
import { compute } from "./engine_client.js";
import { mountConfusion, mountMistakes } from "./mistakes.js";
import { mountLooking } from "./looking.js";
import { mountNetwork } from "./network_view.js";
import { mountOwn } from "./own.js";
import { configure, createPage, fromAddress, tell } from "./page.js";
import { mountProgress } from "./progress.js";
import { mountServed } from "./served.js";
import { logitsOf } from "./session.js";
import { mountSubject } from "./subject.js";

async function begin() {
  const content = JSON.parse(document.getElementById("data").textContent);
  const datasets = new Map();
  for (const each of content.datasets) datasets.set(each.name, await decode(each));
  const page = createPage(datasets, content.network);
  const defaults = content.network ? { data: content.network.data, network: content.network.text, start: "checkpoint" } : {};
  const config = fromAddress(page, defaults);
  page.config = config;
  mount(page);
  page.config = null;
  await useDevice(page, config); // the page is seen meanwhile
  if (!(await configure(page, config))) {
    const { text } = page.notice;
    await configure(page, { ...config, ...fromAddressNothing(page, defaults), hide: config.hide });
    tell(page, `${text} The page begins with its own network.`, "error");
  }
  page.emit("notice");
  addEventListener("hashchange", () => location.reload());
  expose(page);
}

// The configuration of an empty address.
function fromAddressNothing(page, defaults) {
  history.replaceState(null, "", "#");
  return fromAddress(page, defaults);
}

async function useDevice(page, config) {
  const device = await compute("begin", { device: config.device });
  if (device !== config.device) tell(page, "This browser offers no WebGPU; the network runs on WebAssembly.", "error");
  config.device = device;
}

function mount(page) {
  const notice = h("p", { class: "notice", role: "alert", id: "notice", hidden: true });
  page.on("notice", () => {
    notice.hidden = !page.notice.text;
    notice.className = `notice ${page.notice.kind}`;
    notice.replaceChildren(page.notice.text, h("button", { class: "remove", "aria-label": "Close this message", onclick: () => tell(page, "") }, "×"));
  });
  const part = (name, mounted) => (page.hides(name) ? null : mounted(page));
  document.getElementById("playground").append(
    ...[
      h("header", { class: "top" }, h("div", {}, h("h1", {}, "A convolutional network to play with"), h("p", {}, "It trains here, in your browser. Then look into what it has learnt, and fool it.")), part("link", mountLink)),
      mountControls(page),
      notice,
      mountNetwork(page),
      h("div", { class: "row-of-cards" }, part("curves", mountProgress), mountSubject(page)),
      part("looking", mountLooking),
      h("div", { class: "row-of-cards" }, part("confusion", mountConfusion), part("mistakes", mountMistakes)),
      part("own", mountOwn),
    ].filter(Boolean),
  );
  // a file that misses its place does not take the browser away from the page
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.emit("theme"));
  const server = document.querySelector('meta[name="cnn-jax-server"]');
  if (server) {
    const container = document.getElementById("served");
    container.hidden = false;
    mountServed(container);
  }
}

// What a console, or a test, may read.
function expose(page) {
  window.playground = {
    get step() {
      return page.session.step;
    },
    get losses() {
      return [...page.session.losses];
    },
    get accuracy() {
      return page.session.tests.at(-1)?.accuracy;
    },
    // of test examples, counted from the first
    logits: async (count) => (await logitsOf(page.session, page.testImages.slice(0, count))).map((each) => [...each]),
    get playing() {
      return page.playing;
    },
  };
  document.documentElement.dataset.ready = "true";
}

begin().catch((error) => {
  document.getElementById("playground").append(h("p", { class: "notice error", role: "alert" }, `The page could not start: ${error.message}`));
  throw error;
});
