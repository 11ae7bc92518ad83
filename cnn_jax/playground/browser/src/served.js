// The panel of a page that a cnn_jax server stands behind: it asks by POST, and shows the frames of
// the stream that answers. Leaving the page, or the stop button, ends the stream and so the work.

import { h, scrollTo, svg } from "./dom.js";

const STYLE = `
#served { padding-top: 1.5rem; padding-bottom: 1rem; }
#served .card { border-radius: .9rem; margin: 1rem 0 0; }
#served .card h2 { margin-bottom: .75rem; }
#served label { display: inline-grid; gap: .1rem; font-size: .8rem; color: var(--quiet); }
#served label :is(select, input) { color: var(--text); font-size: .95rem; }
#served .row { display: flex; flex-wrap: wrap; gap: .75rem 1rem; align-items: end; }
#served .row + * { margin-top: .75rem; }
#served select { max-width: 20rem; min-height: 2.2rem; }
#served input:not([type=range], [type=radio], [type=file]) { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem; min-height: 2.2rem; padding: .25rem .4rem; }
#served input[type=number] { width: 6rem; }
#served input[type=range] { width: 13rem; min-height: 2.2rem; accent-color: var(--accent); }
#served button { min-height: 2.2rem; }
#served button:disabled { opacity: .45; cursor: default; }
#served .photographs { display: flex; flex-wrap: wrap; gap: .6rem; margin: .75rem 0; }
#served .photographs label { font-size: .75rem; width: 6.5rem; text-align: center; overflow-wrap: anywhere; cursor: pointer; align-content: start; position: relative; }
#served .photographs input { position: absolute; opacity: 0; min-height: 0; }
#served .photographs img { width: 6.5rem; height: 6.5rem; object-fit: cover; border-radius: .5rem; border: 3px solid transparent; }
#served .photographs input:checked + img { border-color: var(--accent); }
#served .photographs input:focus-visible + img { outline: 3px solid var(--accent); outline-offset: 2px; }
#served .dropping { border-color: var(--accent); }
#served .pictures, #served .curves { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .75rem; }
#served figure { margin: 0; flex: 0 1 17rem; min-width: 9rem; }
#served .pictures.wide figure:first-child { flex-basis: 34rem; }
#served figure img { width: 100%; display: block; border-radius: .4rem; }
#served figcaption { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; }
#served progress { width: 100%; height: .5rem; accent-color: var(--accent); }
#served ol { list-style: none; margin: .75rem 0 0; padding: 0; max-width: 36rem; }
#served li { display: grid; grid-template-columns: minmax(0, 1fr) 9rem 4rem; gap: .6rem; align-items: center; }
#served .share { height: .7rem; background: var(--accent); border-radius: .2rem; min-width: 1px; }
#served .number { text-align: right; font-variant-numeric: tabular-nums; }
#served svg { width: 100%; height: auto; display: block; }
#served svg path { fill: none; stroke: var(--accent); stroke-width: 1.8; stroke-linejoin: round; }
#served svg line { stroke: var(--line); }
#served svg text { font-size: 11px; fill: var(--quiet); }
#served svg .name { fill: var(--text); font-size: 12px; }
#served [role=status] { min-height: 1.5em; }
#served .error { color: var(--wrong); font-weight: 600; }
#served [hidden] { display: none; }
@media (max-width: 34rem) {
  #served .row label, #served select, #served input[type=range] { width: 100%; max-width: none; }
  #served .photographs label, #served .photographs img { width: 5.2rem; }
  #served .photographs img { height: 5.2rem; }
  #served li { grid-template-columns: minmax(0, 1fr) 4.5rem 3.8rem; }
}`;

const TASKS = {
  classify: { title: "say what is on it", controls: [] },
  explain: { title: "show what the answer depends on", controls: ["method", "target", "layer"] },
  attack: { title: "fool the network", controls: ["attack", "norm", "eps", "target", "steps", "seed"] },
  activations: { title: "show a layer's activations", controls: ["layer"] },
  ascent: { title: "make an image that it likes", controls: ["target", "layer", "channel", "way", "steps", "seed"] },
  inversion: { title: "rebuild it from a layer", controls: ["layer", "steps", "seed"] },
  dream: { title: "let a layer dream", controls: ["layer", "octaves", "steps", "seed"] },
};
const NOTCHES = 200; // of the budget's slider
const LAYERED = ["grad_cam", "guided_grad_cam"];
const PICTURED = ["explain", "attack", "inversion", "dream"]; // show the photograph beside

function labelled(text, control) {
  return h("label", {}, h("span", {}, text), control);
}

function options(select, rows, chosen) {
  select.replaceChildren(
    ...rows.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
}

// One curve as a small picture with its first and last step, its range and its last value.
function curve(name, points) {
  const known = points.filter(([, y]) => Number.isFinite(y));
  const [w, height, left, bottom] = [260, 130, 6, 16];
  const xs = known.map(([x]) => x);
  const ys = known.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const place = ([x, y]) => [
    left + ((x - x0) / (x1 - x0 || 1)) * (w - 2 * left),
    height - bottom - 4 - ((y - y0) / (y1 - y0 || 1)) * (height - bottom - 30),
  ];
  const figures = (value) => Number(value.toPrecision(4)).toString();
  const d = known.map((point, i) => `${i ? "L" : "M"}${place(point).map((v) => v.toFixed(1))}`).join("");
  const last = known.length ? figures(ys.at(-1)) : "no number yet";
  const said = known.length ? `${name}: ${last} at step ${x1}, between ${figures(y0)} and ${figures(y1)}` : `${name}: ${last}`;
  const y = height - bottom;
  return h("figure", {}, svg("svg", { viewBox: `0 0 ${w} ${height}`, role: "img", "aria-label": said },
    svg("text", { class: "name", x: left, y: 13 }, `${name}: ${last}`),
    svg("line", { x1: left, x2: w - left, y1: y, y2: y }),
    svg("path", { d }),
    svg("text", { x: left, y: height - 3 }, known.length ? x0 : ""),
    svg("text", { x: w / 2, y: height - 3, "text-anchor": "middle" }, known.length > 1 ? `from ${figures(y0)} to ${figures(y1)}` : ""),
    svg("text", { x: w - left, y: height - 3, "text-anchor": "end" }, known.length ? x1 : "")));
}

function curves(container, series) {
  container.replaceChildren(...Object.entries(series).map(([name, points]) => curve(name, points)));
}

// The frames of an answer, as they come.
async function* frames(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Error("the server ended, or the connection to it; is it still running?");
    });
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
    }
  }
}

export function mountServed(container) {
  document.body.prepend(container); // the network that trains in the page comes after it
  const token = document.querySelector('meta[name="cnn-jax-server"]').content;
  const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
  const headers = { "X-CNN-JAX-Token": token };

  async function ask(path, request = {}) {
    let answer;
    try {
      answer = await fetch(path, { ...request, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer; is it still running?");
    }
    if (!answer.ok) throw new Error((await answer.text()).trim().replace(/^error: /, ""));
    return answer;
  }
  const post = (path, body, signal) =>
    ask(path, { method: "POST", body: JSON.stringify({ client, ...body }), signal });

  let subject = null; // what the server says of the network
  let photographs = []; // { id, name, src, file }, of which those with a file were uploaded
  let chosen = null;
  let running = null; // the AbortController of what is computed
  let shownTask = null;

  // --- what there is to choose --------------------------------------------------------------
  const network = h("select");
  const reload = h("button", { class: "plain", type: "button", title: "Load its newest checkpoint" }, "Load anew");
  const about = h("p", { class: "quiet" });
  const choice = h("div", { class: "photographs", role: "radiogroup", "aria-label": "Photograph" });
  const file = h("input", { type: "file", accept: "image/*", multiple: true });
  const task = h("select");
  options(task, Object.entries(TASKS).map(([name, { title }]) => [name, title]), "classify");
  const classes = h("datalist", { id: "served-classes" });
  const control = {
    method: h("select"),
    attack: h("select"),
    norm: h("select"),
    eps: h("input", { type: "range", min: "1", max: String(NOTCHES) }),
    target: h("input", { list: "served-classes", placeholder: "by name or number", size: "24", autocomplete: "off" }),
    layer: h("select"),
    channel: h("input", { type: "number", min: "0", value: "0" }),
    way: h("select"),
    octaves: h("input", { type: "number", min: "1", max: "8", value: "4" }),
    steps: h("input", { type: "number", min: "1", max: "2000", placeholder: "usual" }),
    seed: h("input", { type: "number", min: "0", value: "0" }),
  };
  options(control.way, [["spectrum", "robust: a spectrum, under shifts and turns"], ["zeros", "plain: from grey, with a penalty"]], "spectrum");
  const size = h("span"); // an output would take the label for itself
  const names = {
    method: "Method", attack: "Attack", norm: "Measured in", eps: "Budget", target: "Class", layer: "Layer",
    channel: "Channel", way: "Way", octaves: "Octaves", steps: "Steps", seed: "Seed",
  };
  const labels = Object.fromEntries(Object.entries(control).map(([name, each]) => [name, labelled(names[name], each)]));
  labels.eps.firstChild.append(": ", size);

  const start = h("button", { class: "plain primary", type: "button" }, "Start");
  const stop = h("button", { class: "plain", type: "button", disabled: true }, "Stop");
  const status = h("p", { role: "status", "aria-live": "polite" });
  const progress = h("progress", { "aria-label": "Progress", value: 0, max: 1 });
  const pictures = h("div", { class: "pictures" });
  const answers = h("ol", { "aria-label": "The likeliest classes" });
  const numbers = h("div", { class: "curves" });

  // what needs a network is not there before one is loaded
  const photographPart = h("section", { class: "card", hidden: true }, h("h2", {}, "Network and photograph"),
    h("div", { class: "row" }, labelled("Network", network), reload), about, choice,
    h("div", { class: "row" }, labelled("Photographs of your own, or drop them here; they stay in this machine's memory", file)));
  const taskPart = h("section", { class: "card", hidden: true }, h("h2", {}, "What to do"), classes,
    h("div", { class: "row" }, labelled("Task", task), ...Object.values(labels)),
    h("div", { class: "row", style: "margin-top: .75rem" }, start, stop));
  container.append(
    h("style", {}, STYLE),
    h("h1", {}, "A network, looked into by JAX"),
    h("div", { class: "row-of-cards" }, photographPart, taskPart),
    h("section", { class: "card" }, h("h2", {}, "Result"), status, progress, pictures, answers, numbers),
  );

  const say = (text, failed = false) => {
    status.textContent = text;
    status.classList.toggle("error", failed);
    if (failed) scrollTo(status); // it may be far from the button, on a phone
  };

  function arrange() {
    const shown = new Set(TASKS[task.value].controls);
    if (task.value === "explain" && !LAYERED.includes(control.method.value)) shown.delete("layer");
    if (task.value === "ascent") shown.delete(control.layer.value ? "target" : "channel");
    if (task.value === "attack" && subject) {
      const row = subject.attacks.find(({ name }) => name === control.attack.value);
      if (!row.bounded) shown.delete("eps");
      if (!row.targeted) shown.delete("target");
      if (["fgsm", "autoattack"].includes(row.name)) shown.delete("steps");
    }
    for (const [name, label] of Object.entries(labels)) label.hidden = !shown.has(name);
    labels.target.firstChild.textContent = task.value === "attack" ? "To be taken for (any, where empty)" : task.value === "explain" ? "For the class (the likeliest, where empty)" : "Class";
    if (subject) {
      const [free, own] = task.value === "ascent" ? ["none: a class", ""] : ["usual one", ""];
      const before = control.layer.value;
      const spatial = ["dream", "explain"].includes(task.value);
      const layers = subject.layers.filter(({ shape }) => !spatial || shape.length === 3);
      options(control.layer, [[own, free], ...layers.map(({ path, shape }) => [path, `${path} (${shape.join("×")})`])], before);
    }
    return shown;
  }

  function attackChosen() {
    const row = subject.attacks.find(({ name }) => name === control.attack.value);
    options(control.norm, row.norms.map((norm) => [norm, { linf: "largest change (l∞)", l2: "Euclidean length (l2)", l1: "sum of changes (l1)" }[norm]]), row.norms[0]);
    normChosen();
  }

  function normChosen() {
    const { usual, most } = subject.eps[control.norm.value];
    control.eps.value = Math.round((NOTCHES * usual) / most);
    epsMoved();
  }

  const budget = () => (subject.eps[control.norm.value].most * Number(control.eps.value)) / NOTCHES;

  function epsMoved() {
    const value = budget();
    size.textContent = control.norm.value === "linf" ? `${(255 * value).toFixed(1)}/255` : value.toPrecision(3);
  }

  function showPhotographs() {
    choice.replaceChildren(...photographs.map((each) => {
      const radio = h("input", { type: "radio", name: "served-photograph", value: each.id, checked: each === chosen });
      radio.addEventListener("change", () => { chosen = each; });
      return h("label", {}, radio, h("img", { src: each.src, alt: each.name }), h("span", { "aria-hidden": "true" }, each.name));
    }));
  }

  async function load(name, anew = false) {
    say("loading the network");
    container.setAttribute("aria-busy", "true");
    try {
      const query = new URLSearchParams({ network: name, ...(anew ? { anew: "" } : {}) });
      subject = await (await ask(`/api/subject?${query}`)).json();
    } catch (error) {
      if (subject) network.value = subject.network;
      return say(error.message, true);
    } finally {
      container.removeAttribute("aria-busy");
    }
    options(network, subject.networks.map((each) => [each, each]), subject.network);
    const place = subject.source.workdir ?? subject.source.weights ?? "";
    const step = subject.source.step === undefined ? "" : `, step ${subject.source.step}`;
    about.textContent = `${subject.model} of ${place}${step}: ${subject.classes.length} classes, images of ${subject.image.join("×")}`;
    classes.replaceChildren(...subject.classes.map((each) => h("option", { value: each })));
    options(control.method, subject.methods.map(({ name, title }) => [name, title]), "grad_cam");
    options(control.attack, subject.attacks.map(({ name }) => [name, name.replaceAll("_", " ")]), "pgd");
    const files = photographs.filter(({ file }) => file).map(({ file }) => file);
    photographs = subject.photographs;
    chosen = photographs[0] ?? null;
    control.layer.value = "";
    attackChosen();
    arrange();
    showPhotographs();
    photographPart.hidden = taskPart.hidden = false;
    say("ready");
    await upload(files, false);
    return undefined;
  }

  async function upload(files, choose = true) {
    for (const each of files) {
      try {
        const query = new URLSearchParams({ network: subject.network, name: each.name });
        const found = await (await ask(`/api/photographs?${query}`, { method: "POST", body: each })).json();
        photographs.push({ ...found, file: each });
        if (choose) chosen = photographs.at(-1);
        say(`${each.name} is here`);
      } catch (error) {
        say(`${each.name}: ${error.message}`, true);
      }
    }
    showPhotographs();
  }

  // --- what is computed ---------------------------------------------------------------------
  function draw(frame, history) {
    // read out: how it begins and ends, not every step
    status.setAttribute("aria-live", frame.end || !frame.step ? "polite" : "off");
    if (frame.error) return say(frame.error, true);
    say(frame.steps && !frame.end ? `${frame.text} · step ${frame.step} of ${frame.steps}` : frame.text);
    if (frame.steps) Object.assign(progress, { max: frame.steps, value: frame.step });
    else if (!frame.end) progress.removeAttribute("value");
    if (frame.pictures.length) {
      const beside = PICTURED.includes(shownTask) ? [{ title: "Photograph", alt: `the photograph ${chosen.name}`, src: chosen.src }] : [];
      const all = [...beside, ...frame.pictures];
      if (pictures.children.length !== all.length) {
        pictures.replaceChildren(...all.map(() => h("figure", {}, h("img"), h("figcaption"))));
      }
      all.forEach(({ title, alt, src }, i) => {
        const [image, caption] = pictures.children[i].children;
        Object.assign(image, { src, alt });
        caption.textContent = title;
      });
    }
    answers.replaceChildren(...frame.classes.map(({ name, probability }) =>
      h("li", {}, h("span", {}, name),
        h("span", { "aria-hidden": "true" }, h("div", { class: "share", style: `width: ${100 * probability}%` })),
        h("span", { class: "number" }, `${(100 * probability).toFixed(1)} %`))));
    for (const [name, value] of Object.entries(frame.numbers)) {
      (history[name] ??= []).push([frame.step ?? history[name].length, value]);
    }
    if (Object.values(history).some((points) => points.length > 1)) curves(numbers, history);
    return undefined;
  }

  async function run() {
    if (!chosen && task.value !== "ascent") return say("choose a photograph first", true);
    running?.abort();
    const mine = (running = new AbortController());
    const shown = arrange();
    const asked = { network: subject.network, task: task.value, photograph: chosen?.id };
    for (const name of shown) {
      const value = control[name].value;
      if (value === "") continue;
      const number = ["channel", "octaves", "steps", "seed"].includes(name);
      asked[name] = name === "eps" ? budget() : number ? Number(value) : value;
    }
    shownTask = task.value;
    pictures.classList.toggle("wide", shownTask === "activations");
    const history = {};
    numbers.replaceChildren();
    answers.replaceChildren();
    pictures.replaceChildren();
    stop.disabled = false;
    let ended = false;
    try {
      for await (const frame of frames(await post("/api/run", asked, mine.signal))) {
        if (mine.signal.aborted) break;
        draw(frame, history);
        ended ||= frame.end;
      }
      if (!ended && running === mine) say("the server ended before it was through", true);
    } catch (error) {
      if (!mine.signal.aborted) say(error.message, true);
    }
    if (running === mine) rest();
    return undefined;
  }

  function rest() {
    running = null;
    if (document.activeElement === stop) start.focus(); // a disabled button cannot keep the focus
    stop.disabled = true;
    if (!progress.hasAttribute("value")) progress.value = 0;
    status.setAttribute("aria-live", "polite");
  }

  start.addEventListener("click", run);
  stop.addEventListener("click", () => {
    running?.abort();
    rest();
    say(progress.value ? `stopped at step ${progress.value} of ${progress.max}` : "stopped");
  });
  network.addEventListener("change", () => load(network.value));
  reload.addEventListener("click", () => load(network.value, true));
  task.addEventListener("change", () => { control.layer.value = ""; arrange(); });
  control.method.addEventListener("change", arrange);
  control.layer.addEventListener("change", arrange);
  control.attack.addEventListener("change", () => { attackChosen(); arrange(); });
  control.norm.addEventListener("change", normChosen);
  control.eps.addEventListener("input", epsMoved);
  control.eps.addEventListener("change", () => { if (shownTask === "attack" && task.value === "attack") run(); });
  file.addEventListener("change", () => upload(Array.from(file.files)));
  photographPart.addEventListener("dragover", (event) => { event.preventDefault(); photographPart.classList.add("dropping"); });
  photographPart.addEventListener("dragleave", () => photographPart.classList.remove("dropping"));
  photographPart.addEventListener("drop", (event) => {
    event.preventDefault();
    photographPart.classList.remove("dropping");
    upload(Array.from(event.dataTransfer.files));
  });

  load("").then(() => {
    if (!subject) return;
    if (subject.trains) mountTraining(container, subject.trains, post, load);
    if (subject.watched) mountWatched(container, subject.watched, post);
  });
}

// A run that is started from here, paused, stopped, and gone on with.
function mountTraining(container, trains, post, load) {
  const seed = h("input", { type: "number", min: "0", value: "0" });
  const start = h("button", { class: "plain primary", type: "button" }, "Train");
  const pause = h("button", { class: "plain", type: "button", disabled: true, "aria-pressed": "false" }, "Pause");
  const stop = h("button", { class: "plain", type: "button", disabled: true }, "Stop");
  const look = h("button", { class: "plain", type: "button" }, "Look into it");
  const status = h("p", { role: "status", "aria-live": "off" });
  const progress = h("progress", { "aria-label": "Progress of the training", value: 0, max: 1 });
  const shown = h("div", { class: "curves" });
  container.append(h("section", { class: "card" }, h("h2", {}, `Train a network on ${trains.recipe}, by JAX`),
    h("div", { class: "row" }, labelled("Seed", seed), start, pause, stop, look), status, progress, shown));
  let running = null;
  let paused = false;

  const say = (text, failed = false) => {
    status.textContent = text;
    status.classList.toggle("error", failed);
  };
  const press = (now) => {
    paused = now;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
  };

  start.addEventListener("click", async () => {
    const mine = (running = new AbortController());
    start.disabled = true;
    pause.disabled = stop.disabled = false;
    press(false);
    try {
      for await (const frame of frames(await post("/api/train", { seed: Number(seed.value) }, mine.signal))) {
        say(frame.error || frame.text, Boolean(frame.error));
        if (frame.steps) Object.assign(progress, { max: frame.steps, value: frame.step });
        if (Object.keys(frame.series).length) curves(shown, frame.series);
      }
    } catch (error) {
      say(mine.signal.aborted ? "stopped; its last step is saved, and training goes on from there" : error.message, !mine.signal.aborted);
    }
    running = null;
    start.disabled = false;
    pause.disabled = stop.disabled = true;
    press(false);
  });
  pause.addEventListener("click", async () => {
    try {
      press((await (await post("/api/pause", { paused: !paused })).json()).paused);
    } catch (error) {
      say(error.message, true);
    }
  });
  stop.addEventListener("click", () => running?.abort());
  look.addEventListener("click", async () => {
    await load("trained here", true);
    container.querySelector("select").focus();
  });
}

// The curves of a run that another process trains.
async function mountWatched(container, folder, post) {
  const status = h("p", { role: "status", "aria-live": "off" });
  const shown = h("div", { class: "curves" });
  container.append(h("section", { class: "card" }, h("h2", {}, `The run in ${folder}, as it trains`), status, shown));
  try {
    for await (const frame of frames(await post("/api/watch", {}))) {
      status.textContent = frame.error || frame.text || `step ${frame.step}`;
      curves(shown, frame.series);
    }
    throw new Error("the server ended");
  } catch (error) {
    status.textContent = error.message;
    status.classList.add("error");
  }
}
