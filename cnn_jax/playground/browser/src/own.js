// The visitor's own data: drawn or dropped images, sorted into classes, as a data set of its own.
import { h } from "./dom.js";
import { configure, tell } from "./page.js";
import { canvas, paintImage, readImage } from "./pictures.js";

const SIZE = 16;
const LARGEST = 50e6; // bytes of a file
const MOST_CLASSES = 10;
const NAME = "own";

export function mountOwn(page) {
  const groups = [
    { name: "first", images: [] },
    { name: "second", images: [] },
  ];
  const list = h("div", { class: "groups" });
  const start = h("button", { class: "plain primary", id: "train-own", onclick: train }, "Train on these");

  async function add(group, files) {
    const refused = [];
    for (const file of files) {
      const image = await decode(file);
      if (image) group.images.push(image);
      else refused.push(`“${file.name}”`);
    }
    if (refused.length) tell(page, `${refused.join(", ")} ${refused.length > 1 ? "are no images" : "is no image"} that this browser reads; left out.`, "error");
    draw();
  }

  function draw() {
    list.replaceChildren(
      ...groups.map((group, k) => {
        const input = h("input", { type: "file", accept: "image/*", multiple: true, class: "file", "aria-label": `Images of ${group.name}`, onchange: () => add(group, [...input.files]) });
        const zone = h(
          "section",
          { class: "group", "aria-label": `Class ${k + 1}` },
          h("input", { class: "group-name", value: group.name, maxlength: 20, "aria-label": `Name of class ${k + 1}`, onchange: (event) => (group.name = event.target.value.trim() || group.name) }),
          h("div", { class: "examples tiny" }, group.images.map((image, i) => {
            const picture = canvas(`${group.name}, image ${i + 1}`);
            paintImage(picture, image, [3, SIZE, SIZE]);
            return h("button", { class: "thumbnail", title: "Take out", "aria-label": `Take image ${i + 1} out of ${group.name}`, onclick: () => (group.images.splice(i, 1), draw()) }, picture);
          })),
          h("label", { class: "drop" }, "Drop images here, or choose files", input),
          h("button", { class: "plain", onclick: () => {
            const pad = document.getElementById("pad");
            group.images.push(scaled(pad, pad.width, pad.height));
            draw();
          } }, "Add the drawing"),
        );
        zone.addEventListener("dragover", (event) => (event.preventDefault(), zone.classList.add("over")));
        zone.addEventListener("dragleave", () => zone.classList.remove("over"));
        zone.addEventListener("drop", (event) => {
          event.preventDefault();
          zone.classList.remove("over");
          add(group, [...event.dataTransfer.files]);
        });
        return zone;
      }),
      groups.length < MOST_CLASSES ? h("button", { class: "plain", onclick: () => (groups.push({ name: `class ${groups.length + 1}`, images: [] }), draw()) }, "One more class") : null,
    );
  }

  async function train() {
    const used = groups.filter(({ images }) => images.length);
    if (used.length < 2 || used.some(({ images }) => images.length < 2)) {
      return tell(page, "Own data need two classes at least, and two images in each: one to train on and one to test.", "error");
    }
    page.datasets.set(NAME, build(used));
    page.testSource = null;
    await configure(page, { data: NAME, start: "seed" }, false);
  }

  draw();
  return h("section", { class: "card own", "aria-labelledby": "own-title" }, h("header", {}, h("h2", { id: "own-title" }, "Your own data"), h("p", { class: "quiet" }, "They stay on this page and are sent nowhere; the address does not hold them.")), list, start);
}

// A file as an image [3, SIZE, SIZE] in 0..1, its middle square; null where it is none.
async function decode(file) {
  if (file.size > LARGEST) return null;
  try {
    const bitmap = await createImageBitmap(file);
    const found = scaled(bitmap, bitmap.width, bitmap.height);
    bitmap.close();
    return found;
  } catch {
    return null;
  }
}

function scaled(source, width, height) {
  const side = Math.min(width, height);
  const small = h("canvas", { width: SIZE, height: SIZE });
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIZE, SIZE);
  return readImage(small, [3, SIZE, SIZE]);
}

// Every fifth image of a class, and one at least, is kept for testing.
function build(groups) {
  const parts = { train: [], test: [] };
  groups.forEach(({ images }, label) => images.forEach((image, i) => parts[i % 5 === 1 ? "test" : "train"].push({ image, label })));
  const all = [...parts.train, ...parts.test];
  const area = SIZE * SIZE;
  const pixels = new Uint8Array(all.length * area * 3);
  all.forEach(({ image }, n) => {
    for (let p = 0; p < area; p++) for (let c = 0; c < 3; c++) pixels[(n * area + p) * 3 + c] = Math.round(255 * image[c * area + p]);
  });
  return {
    name: NAME,
    classes: groups.map(({ name }) => name),
    shape: [SIZE, SIZE, 3],
    train: parts.train.length,
    count: all.length,
    mean: [0.5, 0.5, 0.5],
    std: [0.25, 0.25, 0.25],
    pixels,
    labels: Uint8Array.from(all, ({ label }) => label),
  };
}
