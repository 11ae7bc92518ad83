// What the parts of the page share: the configuration, the run, the image that is looked at, and events.
//
// Events: session (a run began), refused (it could not), step, tested, playing, rate, subject (another
// image), theme, notice.
import { rateAt, read, withRate, write } from "./address.js";
import { floats, image, testIndices } from "./datasets.js";
import { NetworkError, format, parse, withClasses } from "./network.js";
import { Diverged, advance, close, evaluate, open } from "./session.js";

const REFRESH = 120; // milliseconds between two pictures of a run that goes on

export function createPage(datasets, checkpoint) {
  const listeners = {};
  const page = {
    datasets, // name -> data set
    checkpoint,
    config: null,
    session: null,
    subject: null, // {pixels, label, text}; label: null where nobody knows
    playing: false,
    testImages: [],
    notice: { text: "", kind: "" },
    on(names, f) {
      for (const name of names.split(" ")) (listeners[name] ??= []).push(f);
    },
    emit(name) {
      for (const f of listeners[name] ?? []) f();
    },
    get dataset() {
      return datasets.get(page.config.data);
    },
    hides: (name) => page.config.hide.includes(name),
  };
  return page;
}

export function tell(page, text, kind = "info") {
  page.notice = { text, kind };
  page.emit("notice");
}

// Begins the run of a configuration. Where its network does not fit, that is told and the old run stays.
export async function configure(page, changes, keepSubject = true) {
  const before = page.config;
  const config = { ...before, ...changes };
  const dataset = page.datasets.get(config.data);
  if (before && config.data !== before.data && !changes.network) {
    const classes = page.datasets.get(before.data).classes.length;
    config.network = format(withClasses(parse(config.network), classes, dataset.classes.length));
  }
  if (config.start === "checkpoint" && !changes.start && !isCheckpoints(page.checkpoint, config)) config.start = "seed";
  let session;
  try {
    session = await open(config, dataset, config.start === "checkpoint" ? await weightsOf(page.checkpoint, config) : null);
  } catch (error) {
    if (!(error instanceof NetworkError)) throw error;
    tell(page, `${error.message}${page.session ? " The network before it keeps running." : ""}`, "error");
    page.emit("refused");
    return false;
  }
  const old = page.session;
  const moved = !before || before.data !== config.data || page.testSource !== dataset;
  page.config = config;
  page.session = session;
  if (old) {
    close(old);
    tell(page, "");
  }
  if (moved) {
    page.testSource = dataset;
    page.testImages = testIndices(dataset).map((index) => image(dataset, index));
  }
  if (moved || !keepSubject) chooseExample(page, testIndices(dataset)[0], false);
  remember(page);
  page.emit("session");
  page.emit("subject");
  await test(page);
  return true;
}

const isCheckpoints = (checkpoint, { network, data }) => checkpoint && network === checkpoint.text && data === checkpoint.data;

// The variables of the trained network that came with the page.
async function weightsOf(checkpoint, config) {
  if (!isCheckpoints(checkpoint, config)) throw new NetworkError("The trained network's weights fit its own network and data alone.");
  const arrays = async (tables) => {
    const found = {};
    for (const [layer, own] of Object.entries(tables)) {
      found[layer] = {};
      for (const [name, { shape, values }] of Object.entries(own)) {
        found[layer][name] = { shape, values: await floats(values) };
      }
    }
    return found;
  };
  return { params: await arrays(checkpoint.params), stats: await arrays(checkpoint.stats) };
}

// The run so far stands in the address. An own data set cannot: the visitor's images are nowhere else.
export function remember(page) {
  history.replaceState(null, "", `#${write(page.config)}`);
}

export function changeRate(page, rate) {
  page.config.rate = withRate(page.config.rate, page.session.step, rate);
  page.session.config = page.config;
  remember(page);
  page.emit("rate");
}

// The rate that holds now, from the start: what a run that begins anew takes.
export const rateNow = (page) => [[0, rateAt(page.config.rate, page.session.step)]];

export const restart = (page) => configure(page, { rate: rateNow(page) });

export function chooseExample(page, index, announce = true) {
  const { dataset } = page;
  const label = dataset.labels[index];
  page.subject = {
    pixels: image(dataset, index),
    label,
    index,
    text: `${index < dataset.train ? "training" : "test"} example ${index}, ${dataset.classes[label]}`,
  };
  if (announce) page.emit("subject");
}

export function chooseImage(page, pixels, text) {
  page.subject = { pixels, label: null, index: null, text };
  page.emit("subject");
}

let plays = 0;

export async function play(page) {
  if (page.playing) return;
  page.playing = true;
  page.emit("playing");
  const mine = ++plays;
  let shown = 0;
  while (page.playing && mine === plays) {
    if (!(await oneStep(page))) break;
    const now = performance.now();
    if (now - shown > REFRESH) {
      shown = now;
      page.emit("step");
    }
  }
  if (mine !== plays) return; // paused and played again meanwhile
  page.playing = false;
  page.emit("step");
  await test(page);
  page.emit("playing");
}

// The button says so at once; a step that is computed then is the last.
export function pause(page) {
  page.playing = false;
  page.emit("playing");
}

export async function stepOnce(page) {
  if (page.playing) return pause(page);
  await oneStep(page);
  page.emit("step");
  await test(page);
}

// Tests come often at first, when much changes, and rarer then.
const testedAt = (step) => step % (step < 100 ? 10 : step < 1000 ? 25 : 100) === 0;

async function oneStep(page) {
  const { session } = page;
  try {
    await advance(session);
    if (session === page.session && testedAt(session.step)) await test(page);
    return true;
  } catch (error) {
    if (!(error instanceof Diverged)) console.error(error); // such as no memory
    if (session === page.session) tell(page, error.message, "error");
    return session !== page.session;
  }
}

async function test(page) {
  const { session } = page;
  if ((await evaluate(session, page.testImages)) && session === page.session) page.emit("tested");
}

// Reads the address; what it does not understand is told and left out.
export function fromAddress(page, defaults) {
  const names = [...page.datasets.keys()];
  const [config, complaints] = read(location.hash, names, defaults);
  if (!page.checkpoint) config.start = "seed";
  const classes = page.datasets.get(config.data).classes.length;
  const lost = complaints.indexOf("data=own");
  if (lost >= 0) {
    complaints.splice(lost, 1);
    tell(page, "The address does not hold images of your own; bring them again, below. Until then the page takes its own data.", "error");
  }
  if (lost >= 0 || !new URLSearchParams(location.hash.slice(1)).has("network")) {
    const layers = parse(config.network);
    config.network = format(withClasses(layers, layers.at(-1).features, classes));
  }
  if (complaints.length) {
    tell(page, `The address has what this page does not understand, left out: ${complaints.join(", ")}.`, "error");
  }
  return config;
}

