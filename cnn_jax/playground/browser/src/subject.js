// The image that is looked at: an example of the data, or one that the visitor draws.
import { imageShape, testIndices } from "./datasets.js";
import { h, onDrop } from "./dom.js";
import { mark, thumbnail } from "./mistakes.js";
import { chooseImage, tell } from "./page.js";
import { decoded, readImage } from "./pictures.js";

const SIDE = 256;
const STEP = 16; // of the keyboard's pen

export function mountSubject(page) {
  const examples = h("div", { class: "examples few" });
  const caption = h("p", { class: "quiet", id: "subject" });
  const own = h("div", { id: "add-to", class: "add-to" }); // filled by own.js
  let offset = 0;

  const showExamples = () => {
    const indices = testIndices(page.dataset);
    const shown = Array.from({ length: Math.min(10, indices.length) }, (_, k) => indices[(offset + k) % indices.length]);
    examples.replaceChildren(...shown.map((index) => thumbnail(page, index, `test example ${index}, ${page.dataset.classes[page.dataset.labels[index]]}`)));
    mark(examples, page);
  };
  const pad = drawingPad(page);
  page.on("session", () => {
    if (examples.dataset.of !== page.config.data) {
      examples.dataset.of = page.config.data;
      offset = 0;
      showExamples();
      pad.clear();
    }
  });
  page.on("subject", () => {
    caption.textContent = `Now: ${page.subject.text}`;
    own.hidden = page.subject.label !== null;
    mark(examples, page);
  });
  const section = h(
    "section",
    { class: "card subject", "aria-labelledby": "subject-title" },
    h("header", {}, h("h2", { id: "subject-title" }, "Choose an image, or draw one"), caption),
    h("div", { class: "choose" },
      h("div", {}, examples, h("button", { class: "plain", onclick: () => ((offset += 10), showExamples()) }, "Other examples")),
      h("div", { class: "drawing" }, pad.element, own),
    ),
  );
  onDrop(section, (files) => pad.open(files[0]));
  return section;
}

// A square to draw in by pointer or by keys; what is drawn becomes the image that is looked at.
function drawingPad(page) {
  const paper = h("canvas", { id: "pad", class: "pad", width: SIDE, height: SIDE, tabindex: 0, role: "application",
    "aria-label": "Draw here: with the pointer, or move by the arrow keys and draw by holding shift; Delete clears" });
  const context = paper.getContext("2d", { willReadFrequently: true });
  const cursor = h("div", { class: "cursor", hidden: true });
  const hint = h("span", { class: "hint", "aria-hidden": "true" }, "Draw here");
  let at = null; // of the pen
  let drawn = false;

  const colors = () => (page.dataset.name.startsWith("shapes") ? { ground: "#2a4d69", ink: "#ffc14d" } : { ground: "#000", ink: "#fff" });
  const clear = () => {
    context.fillStyle = colors().ground;
    context.fillRect(0, 0, SIDE, SIDE);
    drawn = false;
    hint.hidden = false;
  };
  const line = (from, to) => {
    Object.assign(context, { strokeStyle: colors().ink, lineWidth: SIDE / 9, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    drawn = hint.hidden = true;
    give("your drawing");
  };
  // The middle square of an image file. The digits are light on dark: ink on paper is turned over.
  const open = async (file) => {
    const bitmap = file && (await decoded(file));
    if (!bitmap) return file && tell(page, `“${file.name}” is no image that this browser reads.`, "error");
    const side = Math.min(bitmap.width, bitmap.height);
    context.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
    bitmap.close();
    const onPaper = page.dataset.shape[2] === 1 && isLight(context);
    if (onPaper) {
      Object.assign(context, { globalCompositeOperation: "difference", fillStyle: "#fff" });
      context.fillRect(0, 0, SIDE, SIDE);
      context.globalCompositeOperation = "source-over";
    }
    drawn = hint.hidden = true;
    give(`your image “${file.name}”${onPaper ? ", light and dark exchanged as in the data" : ""}`);
  };
  let waiting = false;
  const give = (text) => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (drawn) chooseImage(page, reduced(paper, imageShape(page.dataset), colors().ground), text);
    });
  };
  const place = (event) => {
    const { left, top, width, height } = paper.getBoundingClientRect();
    return [((event.clientX - left) * SIDE) / width, ((event.clientY - top) * SIDE) / height];
  };
  paper.addEventListener("pointerdown", (event) => {
    paper.setPointerCapture(event.pointerId);
    at = place(event);
    line(at, at);
  });
  paper.addEventListener("pointermove", (event) => {
    if (!paper.hasPointerCapture(event.pointerId)) return;
    const next = place(event);
    line(at, next);
    at = next;
  });
  paper.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [0, -STEP], ArrowDown: [0, STEP], ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0] }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") clear();
    else if (event.key === " ") at = at ?? [SIDE / 2, SIDE / 2], line(at, at);
    else if (move) {
      const from = at ?? [SIDE / 2, SIDE / 2];
      at = from.map((value, i) => Math.min(Math.max(value + move[i], 0), SIDE));
      if (event.shiftKey) line(from, at);
    } else return;
    event.preventDefault();
    cursor.hidden = false;
    const [x, y] = at ?? [SIDE / 2, SIDE / 2];
    Object.assign(cursor.style, { left: `${(100 * x) / SIDE}%`, top: `${(100 * y) / SIDE}%` });
  });
  paper.addEventListener("blur", () => (cursor.hidden = true));
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", id: "open-image", onchange: () => open(file.files[0]).then(() => (file.value = "")) });
  return {
    clear,
    open,
    element: [
      h("div", { class: "paper" }, paper, hint, cursor),
      h("div", { class: "buttons" }, h("button", { class: "plain", onclick: clear }, "Clear"), h("label", { class: "plain" }, "Open an image", file)),
    ],
  };
}

// The drawing in the data's size. Grey data are digits, which fill their image from top to bottom and
// stand in its middle, as in the data set: so the ink's box is brought there.
function reduced(paper, [channels, height, width], ground) {
  const small = h("canvas", { width, height });
  const context = small.getContext("2d");
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const box = channels === 1 ? inkBox(paper) : { left: 0, top: 0, width: paper.width, height: paper.height };
  const scale = Math.min(height / box.height, width / box.width);
  const [w, t] = [box.width * scale, box.height * scale];
  // by halves, so that every pixel of the drawing counts
  let source = paper;
  let { left, top, width: sw, height: sh } = box;
  while (sw / w > 2 || sh / t > 2) {
    const half = h("canvas", { width: Math.ceil(sw / 2), height: Math.ceil(sh / 2) });
    const inner = half.getContext("2d");
    inner.imageSmoothingQuality = "high";
    inner.drawImage(source, left, top, sw, sh, 0, 0, half.width, half.height);
    [source, left, top, sw, sh] = [half, 0, 0, half.width, half.height];
  }
  context.drawImage(source, left, top, sw, sh, (width - w) / 2, (height - t) / 2, w, t);
  return readImage(small, [channels, height, width]);
}

const isLight = (context) => {
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return data.reduce((sum, value, i) => sum + (i % 4 === 3 ? 0 : value), 0) / (3 * SIDE * SIDE) > 127;
};

function inkBox(paper) {
  const { data } = paper.getContext("2d").getImageData(0, 0, SIDE, SIDE);
  let [left, top, right, bottom] = [SIDE, SIDE, -1, -1];
  for (let p = 0; p < SIDE * SIDE; p++) {
    if (data[4 * p] < 128) continue;
    const [x, y] = [p % SIDE, Math.floor(p / SIDE)];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  if (right < 0) return { left: 0, top: 0, width: SIDE, height: SIDE };
  // a thin stroke keeps some room on both sides
  const wide = Math.max(right - left + 1, (bottom - top + 1) / 3);
  const middle = (left + right + 1) / 2;
  return { left: middle - wide / 2, top, width: wide, height: bottom - top + 1 };
}
