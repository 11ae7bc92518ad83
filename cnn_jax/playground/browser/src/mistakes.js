// The confusion matrix and the test images that were read wrong; each cell and image can be chosen.
import { imageShape, image } from "./datasets.js";
import { h, keepFocus, scrollTo } from "./dom.js";
import { chooseExample } from "./page.js";
import { canvas, css, inkOn, paintImage, signedColor } from "./pictures.js";

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
        const color = signedColor(truth === answer ? share : -share);
        const label = `${count} of ${dataset.classes[truth]} taken for ${dataset.classes[answer]}`;
        return h("td", { style: `background: ${css(color)}; color: ${inkOn(color)}` }, count ? h("button", { "aria-label": label, title: `${label}: show one`, onclick: () => {
          page.cell = { truth, answer };
          page.emit("cell");
          const found = page.session.test.predictions.find((each) => each.truth === truth && each.answer === answer);
          if (found) chooseExample(page, found.index);
        } }, count) : null);
      })))),
    );
  };
  page.on("session tested theme", () => keepFocus(table, draw));
  return h("section", { class: "card", "aria-labelledby": "confusion-title" }, h("header", {}, h("h2", { id: "confusion-title" }, "Confusion")), h("div", { class: "scroll" }, table));
}

export function mountMistakes(page) {
  const list = h("div", { class: "examples" });
  const said = h("p", { class: "quiet" });
  const draw = () => {
    const { test, dataset } = page.session;
    if (!test) return;
    const { classes } = dataset;
    const { cell } = page;
    const chosen = ({ truth, answer }) => (cell ? truth === cell.truth && answer === cell.answer : truth !== answer);
    const found = test.predictions.filter(chosen).sort((a, b) => b.probability - a.probability);
    const some = found.length > SHOWN ? `, the ${SHOWN} surest` : ", the surest first";
    if (cell) said.replaceChildren(`${found.length} test images of ${classes[cell.truth]}, ${cell.truth === cell.answer ? "read right" : `taken for ${classes[cell.answer]}`}${some}`, h("button", { class: "plain", onclick: () => ((page.cell = null), draw(), list.querySelector("button")?.focus()) }, "All mistakes"));
    else said.textContent = found.length ? `${found.length} of ${test.predictions.length} test images${some}` : `None: all ${test.predictions.length} test images are right.`;
    keepFocus(list, () => list.replaceChildren(...found.slice(0, SHOWN).map(({ index, truth, answer, probability }) => {
      const text = `test example ${index}: ${classes[truth]}, taken for ${classes[answer]} (${Math.round(100 * probability)} %)`;
      return thumbnail(page, index, text, h("span", {}, `${classes[truth]} → `, h("b", { class: truth === answer ? "right" : "" }, classes[answer])), () => scrollTo(document.querySelector(".looking") ?? document.querySelector(".network")));
    })));
    mark(list, page);
  };
  page.on("session", () => (page.cell = null));
  page.on("session tested cell", draw);
  page.on("subject", () => mark(list, page));
  return h("section", { class: "card mistakes", "aria-labelledby": "mistakes-title" }, h("header", {}, h("h2", { id: "mistakes-title" }, "Mistakes"), said), list);
}

// Tells the thumbnail of the image that is looked at from the others.
export function mark(list, page) {
  for (const button of list.children) button.setAttribute("aria-current", Number(button.dataset.index) === page.subject?.index);
}

export function thumbnail(page, index, text, caption = null, then = () => {}) {
  const { dataset } = page;
  const picture = canvas(text);
  paintImage(picture, image(dataset, index), imageShape(dataset));
  return h("button", { class: "thumbnail", title: text, "aria-label": `Look at ${text}`, "data-index": index, onclick: () => (chooseExample(page, index), then()) }, picture, caption);
}
