// The visitor's own data: drawn or dropped images, sorted into classes, as a data set of its own.
import { h, keepFocus, onDrop } from "./dom.js";
import { configure, tell } from "./page.js";
import { canvas, decoded, paintImage, readImage } from "./pictures.js";

const SIZE = 16;
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
      const bitmap = await decoded(file);
      if (bitmap) group.images.push(scaled(bitmap, bitmap.width, bitmap.height));
      else refused.push(`“${file.name}”`);
      bitmap?.close();
    }
    if (refused.length) tell(page, `${refused.join(", ")} ${refused.length > 1 ? "are no images" : "is no image"} that this browser reads; left out.`, "error");
    draw();
  }

  // Folders are classes of their own: [name, files]. They take the places of classes without images.
  async function addFolders(folders) {
    const room = MOST_CLASSES - groups.filter(({ images }) => images.length).length;
    for (const [name, files] of folders.slice(0, room)) {
      let group = groups.find((each) => each.name === name) ?? groups.find(({ images }) => !images.length);
      if (!group) groups.push((group = { images: [] }));
      group.name = name;
      await add(group, files);
    }
    if (folders.length > room) tell(page, `${folders.length} folders are more than the ${MOST_CLASSES} classes that the page takes; the last ones are left out.`, "error");
  }

  const take = (group) => async (files, transfer) => {
    const folders = await foldersOf(transfer);
    if (folders.length) await addFolders(folders);
    else if (group) await add(group, files);
    else if (files.length) tell(page, "Drop images on the class that they belong to, or a folder for each class.", "error");
  };

  function draw() {
    keepFocus(list, () => list.replaceChildren(...groups.map(box), groups.length < MOST_CLASSES ? h("button", { class: "plain", onclick: () => (groups.push({ name: `class ${groups.length + 1}`, images: [] }), draw()) }, "One more class") : ""));
    addButtons();
  }

  function box(group, k) {
    const input = h("input", { type: "file", accept: "image/*", multiple: true, class: "file", "aria-label": `Images of ${group.name}`, onchange: () => add(group, [...input.files]) });
    const zone = h(
      "section",
      { class: "group", "aria-label": `Class ${k + 1}` },
      h("div", { class: "group-head" },
        h("input", { class: "group-name", value: group.name, maxlength: 20, "aria-label": `Name of class ${k + 1}`, onchange: (event) => ((group.name = event.target.value.trim() || group.name), draw()) }),
        groups.length > 2 ? h("button", { class: "remove", title: "Remove this class", "aria-label": `Remove class ${k + 1}, ${group.name}`, onclick: () => (groups.splice(k, 1), draw()) }, "×") : null),
      h("div", { class: "examples tiny" }, group.images.map((image, i) => {
        const picture = canvas(`${group.name}, image ${i + 1}`);
        paintImage(picture, image, [3, SIZE, SIZE]);
        return h("button", { class: "thumbnail", title: "Take out", "aria-label": `Take image ${i + 1} out of ${group.name}`, onclick: () => (group.images.splice(i, 1), draw()) }, picture);
      })),
      h("label", { class: "drop" }, "Choose images, or drop them here", input),
    );
    onDrop(zone, take(group));
    return zone;
  }

  // Below the pad, for what is on it.
  function addButtons() {
    document.getElementById("add-to")?.replaceChildren("Into your own data: ", ...groups.map((group) =>
      h("button", { class: "plain", "aria-label": `Add it to ${group.name}`, onclick: (event) => {
        const pad = document.getElementById("pad");
        group.images.push(scaled(pad, pad.width, pad.height));
        const at = [...event.target.parentNode.children].indexOf(event.target);
        draw();
        document.getElementById("add-to").children[at].focus();
      } }, `${group.name} ${group.images.length}`)));
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

  const folder = h("input", { type: "file", webkitdirectory: true, multiple: true, class: "unseen", id: "own-folder", onchange: () => addFolders(byFolder([...folder.files].map((file) => [file.webkitRelativePath, file]))) });
  draw();
  page.on("session", addButtons);
  const section = h(
    "section",
    { class: "card own", "aria-labelledby": "own-title" },
    h("header", {}, h("h2", { id: "own-title" }, "Your own data"), h("p", { class: "quiet" }, `Images of two classes or more, each brought to ${SIZE}×${SIZE} pixels. Folders can be dropped, a class each. They stay on this page and are sent nowhere; the address does not hold them.`)),
    list,
    h("div", { class: "buttons" }, start, h("label", { class: "plain" }, "A folder of folders", folder)),
  );
  onDrop(section, take(null));
  return section;
}

// The files of dropped folders by the folder that each lies in.
async function foldersOf(transfer) {
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) found.push([`${path}${entry.name}`, await new Promise((resolve, reject) => entry.file(resolve, reject))]);
    else for (const inner of await entriesOf(entry)) await walk(inner, `${path}${entry.name}/`);
  };
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  for (const entry of entries) if (entry?.isDirectory) await walk(entry, "");
  return byFolder(found);
}

async function entriesOf(directory) {
  const reader = directory.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return all;
    all.push(...some);
  }
}

// In the order of their names, so that the same folders give the same data.
function byFolder(files) {
  const folders = new Map();
  const order = new Intl.Collator("en", { numeric: true });
  for (const [path, file] of files.sort(([a], [b]) => order.compare(a, b))) {
    if (file.name.startsWith(".")) continue;
    const name = path.split("/").at(-2).slice(0, 20);
    folders.set(name, [...(folders.get(name) ?? []), file]);
  }
  return [...folders];
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
