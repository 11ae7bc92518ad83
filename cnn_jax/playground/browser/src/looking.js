// Looking into the network that was just trained, at the chosen image: maps, and images by gradients.
import { imageShape } from "./datasets.js";
import { h } from "./dom.js";
import { adversarial, ascent, inversion, occlusion, saliency } from "./explain.js";
import { nameWidth, title } from "./network_view.js";
import { canvas, largest, paintImage, paintSigned } from "./pictures.js";
import { argmax, logitsOf, softmax } from "./session.js";

export function mountLooking(page) {
  const image = canvas("The image", { class: "subject-picture" });
  const answer = h("p", { class: "answer", id: "answer", "aria-live": "polite" });
  const bars = h("div", { class: "small-bars", role: "img" });
  let target = 0; // what the network says of the image
  let turn = 0;

  const shape = () => imageShape(page.session.dataset);
  const fits = () => page.subject && page.subject.pixels.length === shape().reduce((a, b) => a * b);
  const name = (k) => page.session.dataset.classes[k];
  const percent = (p) => `${(100 * p).toFixed(p > 0.995 || p < 0.1 ? 1 : 0)} %`;
  const summed = (values) => {
    const [channels, height, width] = shape();
    const area = height * width;
    return Float32Array.from({ length: area }, (_, p) => Array.from({ length: channels }, (_, c) => values[c * area + p]).reduce((a, b) => a + b));
  };

  // The probabilities of an image; null where the run has ended meanwhile.
  async function answers(session, pixels) {
    const logits = await logitsOf(session, [pixels]);
    return logits && softmax(logits[0]);
  }

  async function look() {
    if (!fits()) return;
    const mine = ++turn;
    const { session, subject } = page;
    const probabilities = await answers(session, subject.pixels);
    if (!probabilities || mine !== turn || session !== page.session) return;
    paintImage(image, subject.pixels, shape());
    image.setAttribute("aria-label", `The image: ${subject.text}`);
    target = argmax(probabilities);
    const truth = subject.label;
    answer.replaceChildren(h("strong", {}, name(target)), ` ${percent(probabilities[target])}`, truth === null ? "" : truth === target ? h("span", { class: "right" }, " right") : h("span", { class: "wrong" }, ` it is ${name(truth)}`));
    bars.replaceChildren(...probabilities.map((p, k) => h("div", { class: k === target ? "best" : "" }, h("span", { class: "name" }, name(k)), h("span", { class: "track" }, h("span", { class: "fill", style: `width: ${100 * p}%` })))));
    bars.setAttribute("style", nameWidth(session.dataset.classes));
    bars.setAttribute("aria-label", probabilities.map((p, k) => `${name(k)} ${percent(p)}`).join(", "));
    const slope = await saliency(session, subject.pixels, target);
    if (!slope || mine !== turn || session !== page.session) return;
    const map = summed(slope);
    paintSigned(saliencyCard.picture, map, shape().slice(1), largest(map));
    saliencyCard.say(`Saliency for ${name(target)}`, `by which pixels the score of “${name(target)}” rises (blue) or falls (orange)`);
  }

  const saliencyCard = card("saliency", "Saliency", "Gradient of the score by the pixels");
  const occlusionCard = card("occlusion", "Occlusion", "A grey square covers one place after the other", async function* () {
    const asked = target;
    for await (const { heat, row, side } of occlusion(page.session, page.subject.pixels, asked)) {
      paintSigned(occlusionCard.picture, heat, shape().slice(1));
      occlusionCard.say(`Occlusion for ${name(asked)}, ${row + 1} of ${shape()[1]} rows`, `how far the score of “${name(asked)}” falls where a ${side}×${side} square covers the image`);
      yield;
    }
  });

  const classes = h("select", { id: "ascent-class", "aria-label": "Class", onchange: () => ascentCard.run() });
  const ascentCard = card("ascent", "Favourite of a class", "Ascent on the score, from grey", async function* () {
    const asked = Number(classes.value);
    for await (const { image, score, step, steps } of ascent(page.session, asked)) {
      paintImage(ascentCard.picture, image, shape());
      ascentCard.say(`The image that ${name(asked)} likes best, step ${step} of ${steps}`, `step ${step}: score ${score.toFixed(1)}`);
      yield;
    }
  }, classes);

  const epsilon = h("input", { id: "epsilon", type: "range", min: 0, max: 0.5, step: 0.01, value: 0.15, "aria-label": "Epsilon: the most that a pixel may change", oninput: () => {
    showEpsilon();
    adversarialCard.run();
  } });
  const epsilonText = h("span", {});
  const showEpsilon = () => {
    epsilonText.textContent = `ε ${Number(epsilon.value).toFixed(2)}`;
  };
  showEpsilon();
  const difference = canvas("What was changed");
  const adversarialCard = card("adversarial", "Adversarial image", "Small changes against the answer", async function* () {
    const { session, subject } = page;
    const truth = subject.label ?? target;
    for await (const { image, difference: change, step, steps } of adversarial(session, subject.pixels, truth, Number(epsilon.value))) {
      const probabilities = await answers(session, image);
      if (!probabilities) return;
      const said = argmax(probabilities);
      paintImage(adversarialCard.picture, image, shape());
      paintSigned(difference, summed(change), shape().slice(1), shape()[0] * Math.max(Number(epsilon.value), 1e-6));
      difference.setAttribute("aria-label", `What was changed, at most ${epsilon.value} a pixel`);
      const fooled = said !== truth;
      adversarialCard.say(`Adversarial image, taken for ${name(said)}`, [h("strong", { class: fooled ? "wrong" : "" }, name(said)), ` ${percent(probabilities[said])}`, fooled ? `, and not ${name(truth)}` : ", not fooled", ` · step ${step} of ${steps}`]);
      yield;
    }
  }, h("label", { class: "slider" }, epsilonText, epsilon), difference);

  const layers = h("select", { id: "inversion-layer", "aria-label": "Layer", onchange: () => inversionCard.run() });
  const inversionCard = card("inversion", "Inversion", "An image with the same activation at a layer", async function* () {
    const layer = Number(layers.value);
    for await (const { image, error, step, steps } of inversion(page.session, page.subject.pixels, layer)) {
      paintImage(inversionCard.picture, image, shape());
      inversionCard.say(`Inversion of layer ${layer + 1}, step ${step} of ${steps}`, `step ${step}: error ${error < 0.001 ? error.toExponential(0) : error.toFixed(3)} of the activation`);
      yield;
    }
  }, layers);

  // One picture with its title, words and controls; work is the generator that moves it.
  function card(id, heading, words, work = null, control = null, second = null) {
    const picture = canvas(heading);
    const caption = h("p", { class: "quiet" }, words);
    let run = 0;
    const made = {
      picture,
      say(label, text) {
        picture.setAttribute("aria-label", label);
        caption.replaceChildren(...[text].flat());
      },
      async run() {
        if (!work || !fits()) return;
        const mine = ++run;
        const { session } = page;
        made.element.dataset.state = "running";
        for await (const _ of work()) {
          if (mine !== run || session !== page.session) return;
        }
        if (mine === run) made.element.dataset.state = "done";
      },
      stop() {
        run += 1;
        made.element.dataset.state = "waiting";
        if (page.playing) caption.textContent = "Anew when training pauses, or by ↻.";
      },
    };
    made.element = h(
      "article",
      { class: "look", id: `look-${id}`, "aria-label": heading },
      h("header", {}, h("h3", {}, heading), work ? h("button", { class: "again", title: "Run again", "aria-label": `${heading}: run again`, onclick: () => made.run() }, "↻") : null),
      h("div", { class: "pictures" }, picture, second),
      control ? h("div", { class: "control" }, control) : null,
      caption,
    );
    return made;
  }

  const moving = [occlusionCard, adversarialCard, inversionCard, ascentCard];
  let due = null;
  // What moves begins anew for another image or another network, but leaves training its time.
  const later = () => {
    clearTimeout(due);
    for (const each of moving) each.stop();
    due = setTimeout(async () => {
      if (page.playing) return;
      for (const each of moving) {
        if (page.playing) return;
        await each.run();
      }
    }, 300);
  };
  page.on("session", () => {
    const chosen = classes.value;
    classes.replaceChildren(...page.session.dataset.classes.map((name, k) => h("option", { value: k }, name)));
    classes.value = chosen && Number(chosen) < page.session.dataset.classes.length ? chosen : 0;
    layers.replaceChildren(...page.session.plan.map((layer) => h("option", { value: layer.index }, `${layer.index + 1} ${title(layer)}`)));
    layers.value = Math.min(2, page.session.plan.length - 1);
  });
  page.on("step subject theme", look);
  page.on("subject playing", later);
  page.on("step", () => page.playing || later()); // of one step by hand
  page.on("playing", () => answer.setAttribute("aria-live", page.playing ? "off" : "polite"));

  return h(
    "section",
    { class: "card looking", "aria-labelledby": "looking-title" },
    h("header", {}, h("h2", { id: "looking-title" }, "Look into it"), h("p", { class: "quiet" }, "What the network that was just trained makes of the chosen image")),
    h("div", { class: "looks" },
      h("article", { class: "look", "aria-label": "The answer" }, h("header", {}, h("h3", {}, "The answer")), h("div", { class: "pictures" }, image, bars), answer),
      saliencyCard.element, occlusionCard.element, adversarialCard.element, inversionCard.element, ascentCard.element),
  );
}
