// Loss and accuracy, as curves and as numbers.
import { chart, smoothed, thinned } from "./curves.js";
import { h } from "./dom.js";

const SPEAK_EVERY = 10000; // milliseconds

export function mountProgress(page) {
  const loss = chart("Loss");
  const accuracy = chart("Accuracy on the test images");
  const big = h("span", { class: "big", id: "accuracy" });
  const spoken = h("p", { class: "unseen", role: "status" });
  let spokenAt = 0;

  const draw = () => {
    const { losses, tests, dataset } = page.session;
    const guessing = Math.log(dataset.classes.length);
    const until = Math.max(page.session.step, 50);
    const high = Math.max(guessing * 1.15, Math.min(largestOf(losses), guessing * 2));
    loss.draw(
      [
        { className: "raw", points: thinned(losses) },
        { className: "train", name: "training", points: smoothed(losses, 0.8) },
        { className: "test", name: "test", points: tests.map(({ step, loss }) => [step, loss]) },
      ],
      { low: 0, high, ticks: [0, 1, 2, 3, 4].filter((tick) => tick <= high), until, reference: guessing, text: (value, exact) => value.toFixed(exact ? 3 : 0) },
    );
    accuracy.draw(
      [{ className: "test", name: "test", points: tests.map(({ step, accuracy }) => [step, accuracy]) }],
      { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], until, reference: 1 / dataset.classes.length, text: (value, exact) => `${(100 * value).toFixed(exact ? 1 : 0)} %` },
    );
    const last = tests.at(-1);
    big.textContent = last ? `${(100 * last.accuracy).toFixed(1)} %` : "–";
  };
  // The curves change too often to be read out: a sentence now and then, and at every pause.
  const speak = () => {
    const { step, losses, tests } = page.session;
    const now = performance.now();
    if (!step || (page.playing && now - spokenAt < SPEAK_EVERY)) return;
    spokenAt = now;
    spoken.textContent = `Step ${step}: loss ${losses.at(-1).toFixed(3)}, ${(100 * tests.at(-1).accuracy).toFixed(1)} percent of the test images right.`;
  };
  page.on("session step tested", draw);
  page.on("playing tested", speak);
  return h(
    "section",
    { class: "card progress", "aria-labelledby": "progress-title" },
    h("header", {}, h("h2", { id: "progress-title" }, "Learning"), h("p", { class: "headline" }, big, h("span", { class: "quiet" }, " of the test images right"))),
    spoken,
    h("div", { class: "curves" }, loss.element, accuracy.element),
  );
}

const largestOf = (values) => values.reduce((most, value) => Math.max(most, value), 0);
