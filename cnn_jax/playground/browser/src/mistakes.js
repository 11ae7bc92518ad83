// The confusion matrix and the test images that were read wrong; each cell and image can be chosen.
import { imageShape, image } from "./datasets.js";
import { h } from "./dom.js";
import { chooseExample } from "./page.js";
import { canvas, css, paintImage, signedColor } from "./pictures.js";

const SHOWN = 18;

export function mountConfusion(page) {
  const table = h("table", { class: "confusion" });
  const draw = () => {
    const { test, dataset } = page.session;
    if (!test) return;
    const most = Math.max(...test.confusion.map((row) => row.reduce((a, b) => a + b)));
    const short = (name) => (name.length > 6 ? `${name.slice(0, 5)}.` : name);
    table.replaceChildren(
      h("caption", {}, "Rows: what it is. Columns: what the network says."),
      h("thead", {}, h("tr", {}, h("td", {}), dataset.classes.map((name) => h("th", { scope: "col", title: name }, short(name))))),
      h("tbody", {}, test.confusion.map((row, truth) => h("tr", {}, h("th", { scope: "row", title: dataset.classes[truth] }, short(dataset.classes[truth])), row.map((count, answer) => {
        const share = Math.sqrt(count / most);
        const color = css(signedColor(truth === answer ? share : -share));
        const label = `${count} of ${dataset.classes[truth]} taken for ${dataset.classes[answer]}`;
        return h("td", { style: `background: ${color}`, class: share > 0.6 ? "full" : "" }, count ? h("button", { "aria-label": label, title: `${label}: show one`, onclick: () => {
          const found = page.session.test.predictions.find((each) => each.truth === truth && each.answer === answer);
          if (found) chooseExample(page, found.index);
        } }, count) : null);
      })))),
    );
  };
  page.on("session tested theme", draw);
  return h("section", { class: "card", "aria-labelledby": "confusion-title" }, h("header", {}, h("h2", { id: "confusion-title" }, "Confusion")), h("div", { class: "scroll" }, table));
}

export function mountMistakes(page) {
  const list = h("div", { class: "examples" });
  const said = h("p", { class: "quiet" });
  const draw = () => {
    const { test, dataset } = page.session;
    if (!test) return;
    const wrong = test.predictions.filter(({ truth, answer }) => truth !== answer).sort((a, b) => b.probability - a.probability);
    said.textContent = wrong.length ? `${wrong.length} of ${test.predictions.length} test images, the surest mistakes first` : `None: all ${test.predictions.length} test images are right.`;
    list.replaceChildren(...wrong.slice(0, SHOWN).map(({ index, truth, answer, probability }) => {
      const text = `test example ${index}: ${dataset.classes[truth]}, taken for ${dataset.classes[answer]} (${Math.round(100 * probability)} %)`;
      return thumbnail(page, index, text, h("span", {}, `${dataset.classes[truth]} → `, h("b", {}, dataset.classes[answer])));
    }));
  };
  page.on("session tested", draw);
  return h("section", { class: "card", "aria-labelledby": "mistakes-title" }, h("header", {}, h("h2", { id: "mistakes-title" }, "Mistakes"), said), list);
}

export function thumbnail(page, index, text, caption = null) {
  const { dataset } = page;
  const picture = canvas(text);
  paintImage(picture, image(dataset, index), imageShape(dataset));
  return h("button", { class: "thumbnail", title: text, "aria-label": `Look at ${text}`, onclick: () => chooseExample(page, index) }, picture, caption);
}
