// The bar on top: play, step, begin anew, and what a run is made of.
import { BATCHES, DECAYS, DEVICES, HIDEABLE, OPTIMIZERS, RATES, rateAt, write } from "./address.js";
import { h, keepFocus, select } from "./dom.js";
import { changeRate, configure, pause, play, rateNow, remember, restart, stepOnce } from "./page.js";

const NAMES = { sgd: "SGD", momentum: "SGD, momentum .9", adam: "Adam", wasm: "WebAssembly", webgpu: "WebGPU" };
const ICONS = {
  play: "M8 5v14l11-7z",
  pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  step: "M6 5v14l9-7zM16 5h2.5v14H16z",
  reset: "M12 5a7 7 0 1 1-6.6 4.7l1.9.7A5 5 0 1 0 12 7v3L7.5 6 12 2z",
};

const icon = (name) => {
  const holder = document.createElement("span");
  holder.className = "icon";
  holder.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;
  return holder;
};

export function mountControls(page) {
  const playButton = h("button", { class: "play", id: "play", onclick: () => (page.playing ? pause(page) : play(page)) });
  const step = h("button", { class: "round", id: "step", title: "One step", "aria-label": "One step", onclick: () => stepOnce(page) }, icon("step"));
  const reset = h("button", { class: "round", id: "reset", title: "Begin anew", "aria-label": "Begin anew from the first weights", onclick: () => restart(page) }, icon("reset"));
  const count = h("span", { class: "count", id: "count", title: "Steps" });
  const epoch = h("span", { class: "quiet" });
  const fields = h("div", { class: "fields" });

  const showPlaying = () => {
    playButton.replaceChildren(icon(page.playing ? "pause" : "play"));
    playButton.setAttribute("aria-label", page.playing ? "Pause" : "Play: train the network");
    playButton.title = page.playing ? "Pause" : "Play";
    playButton.setAttribute("aria-pressed", page.playing);
  };
  const showCount = () => {
    const { session } = page;
    count.textContent = String(session.step).padStart(5, "0");
    const loss = session.losses.length ? ` · loss ${session.losses.at(-1).toFixed(2)}` : "";
    epoch.textContent = `epoch ${((session.step * session.config.batch) / session.dataset.train).toFixed(1)}${loss}`;
  };
  const field = (name, label, control) =>
    page.hides(name) ? null : h("label", { class: "field" }, h("span", {}, label), control);
  // also a value that no list has, which came from the address
  const numbers = (list, value) => (list.includes(value) ? list : [value, ...list]).map((v) => [String(v), String(v)]);

  const showFields = () => {
    const { config } = page;
    const rate = rateAt(config.rate, page.session.step);
    const change = (name, read = String) => (value) => configure(page, { [name]: read(value), rate: rateNow(page) });
    fields.replaceChildren(
      ...[
        field("data", "Data", select([...page.datasets.keys()], config.data, change("data"), { id: "data" })),
        page.checkpoint && field("start", "Start from", select([["checkpoint", page.checkpoint.name], ["seed", "random weights"]], config.start, (start) =>
          configure(page, start === "checkpoint" ? { start, data: page.checkpoint.data, network: page.checkpoint.text } : { start }), { id: "start" })),
        field("optimizer", "Optimizer", select(OPTIMIZERS.map((name) => [name, NAMES[name]]), config.optimizer, change("optimizer"), { id: "optimizer" })),
        field("rate", "Learning rate", select(numbers(RATES, rate), String(rate), (value) => changeRate(page, Number(value)), { id: "rate" })),
        field("batch", "Batch", select(numbers(BATCHES, config.batch), String(config.batch), change("batch", Number), { id: "batch" })),
        field("l2", "L2", select(numbers(DECAYS, config.l2), String(config.l2), change("l2", Number), { id: "l2", title: "Regularisation: this share of each kernel is added to its gradient" })),
        field("seed", "Seed", h("input", { id: "seed", type: "number", min: 0, max: 9999, value: config.seed, onchange: (event) => {
          const seed = Number(event.target.value);
          if (event.target.value !== "" && Number.isInteger(seed) && seed >= 0 && seed <= 9999) change("seed", Number)(seed);
          else event.target.value = config.seed;
        } })),
        field("device", "Runs on", select(DEVICES.map((name) => [name, NAMES[name]]), config.device, changeDevice, { id: "device" })),
      ].filter(Boolean),
    );
  };

  // jax-js keeps the device that it began with
  const changeDevice = (device) => {
    page.config.device = device;
    remember(page);
    location.reload();
  };

  page.on("playing", showPlaying);
  page.on("session step", showCount);
  page.on("session rate refused", () => keepFocus(fields, showFields));
  showPlaying();
  return h("div", { class: "bar" }, h("div", { class: "transport" }, reset, playButton, step, h("div", { class: "counts" }, count, epoch)), fields);
}

// What a link may leave away, see HIDEABLE.
const PARTS = {
  ...{ data: "Data", network: "Network's controls", optimizer: "Optimizer", rate: "Learning rate", batch: "Batch", l2: "L2", seed: "Seed" },
  ...{ device: "Runs on", start: "Start from", curves: "Learning", confusion: "Confusion", mistakes: "Mistakes", looking: "Look into it" },
  ...{ own: "Your own data", link: "Copy link" },
};

// Copies the address, all of which the run is made of; for a lesson, without some of the controls.
export function mountLink(page) {
  const hidden = new Set(page.config.hide);
  const copier = (text, address) => {
    const button = h("button", { class: "plain", onclick: async () => {
      try {
        await navigator.clipboard.writeText(address());
        button.textContent = page.config.data === "own" ? "Copied, without your images" : "Copied";
      } catch {
        button.textContent = "No clipboard here; take the address bar";
      }
      setTimeout(() => (button.textContent = text), 2500);
    } }, text);
    return button;
  };
  const link = copier("Copy link", () => location.href);
  link.id = "link";
  const parts = HIDEABLE.filter((name) => name !== "start" || page.checkpoint).map((name) =>
    h("label", {}, h("input", { type: "checkbox", value: name, checked: hidden.has(name), onchange: ({ target }) => (target.checked ? hidden.add(name) : hidden.delete(name)) }), ` ${PARTS[name]}`));
  const lesson = h("details", { class: "lesson", onkeydown: (event) => event.key === "Escape" && ((lesson.open = false), lesson.firstChild.focus()) },
    h("summary", { class: "plain" }, "For a lesson"),
    h("div", { class: "card" },
      h("fieldset", {}, h("legend", {}, "The link leaves away"), parts),
      copier("Copy the lesson's link", () => `${location.href.split("#")[0]}#${write({ ...page.config, hide: [...hidden] })}`)));
  return h("div", { class: "links" }, lesson, link);
}
