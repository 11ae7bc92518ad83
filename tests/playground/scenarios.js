// What visitors do on the page, in headless Chromium: node scenarios.js NAME PAGE.html
// Ends with status 0, or with the first thing that was not as it should be.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const browserFolder = path.join(__dirname, "../../cnn_jax/playground/browser/package.json");
const { chromium } = createRequire(browserFolder)("playwright-core");

const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const SMALL = "network=conv 4 3x3|relu|max_pool 2|dropout 0.2|dense 10&batch=16";
const [name, file] = process.argv.slice(2);

// Opens the page from its file with the network off; what it asks for and complains of is kept.
async function open(browser, hash = "", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1300, height: 900 }, offline: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.told = [];
  page.asked = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.told.push(message.text()));
  page.on("pageerror", (error) => page.told.push(error.stack));
  page.on("request", (request) => /^(data|blob):/.test(request.url()) || page.asked.push(request.url()));
  await page.goto(`file://${path.resolve(file)}${hash ? `#${hash}` : ""}`);
  await page.waitForSelector("html[data-ready]");
  return page;
}

const losses = (page) => page.evaluate(() => playground.losses);
const stepTo = async (page, count) => {
  for (let step = (await losses(page)).length; step < count; step++) {
    await page.click("#step");
    await page.waitForFunction((n) => playground.step > n, step);
  }
};
const trainTo = async (page, step) => {
  await page.click("#play");
  await page.waitForFunction((n) => playground.step >= n, step);
  await page.click("#play");
  await page.waitForFunction(() => !playground.playing);
};
const notice = (page) => page.textContent("#notice");
// Shades of a picture: more than one means that something is drawn.
const shades = (page, selector) =>
  page.$eval(selector, (canvas) => new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size);

const scenarios = {
  async loads(browser) {
    const page = await open(browser);
    assert.deepEqual(page.told, []);
    assert.equal(page.asked.length, 1, `the page asked for ${page.asked}`);
    assert.equal(page.workers().length, 1, "the page answers while a worker computes");
    const nameless = await page.$$eval("canvas:not([aria-hidden]), svg[role=img], img, button, select, input, textarea", (found) =>
      found.filter((each) => !(each.getAttribute("aria-label") || each.alt || each.title || each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML),
    );
    assert.deepEqual(nameless, [], "pictures and controls have names");
    assert.equal(await page.$$eval("canvas:not([aria-hidden])", (all) => all.filter((each) => !each.getAttribute("aria-label")).length), 0);
  },

  async trains(browser) {
    const page = await open(browser);
    const began = Date.now();
    await page.click("#play");
    await page.waitForFunction(() => playground.accuracy >= 0.95, null, { timeout: 60000 });
    console.log(`95 % after ${(Date.now() - began) / 1000} s, ${await page.evaluate(() => playground.step)} steps`);
    await page.click("#play");
    await page.waitForFunction(() => !playground.playing);
    assert.deepEqual(page.told, []);
  },

  async repeats(browser) {
    const hash = `${SMALL}&seed=3&rate=0.01`;
    const first = await open(browser, hash);
    await stepTo(first, 2);
    await first.selectOption("#rate", "0.1");
    await stepTo(first, 5);
    const address = await first.evaluate(() => location.hash.slice(1));
    assert.match(decodeURIComponent(address), /rate=0.01;2:0.1/);
    const second = await open(browser, address);
    await stepTo(second, 5);
    assert.deepEqual(await losses(second), await losses(first), "the same address gives the same losses");
    const hasty = await open(browser, address);
    await hasty.evaluate(() => Array.from({ length: 5 }, () => document.querySelector("#step").click()));
    await hasty.waitForFunction(() => playground.step === 5);
    assert.deepEqual(await losses(hasty), await losses(first), "also where the next step is asked for before the last one ended");
    const other = await open(browser, address.replace("seed=3", "seed=4"));
    await stepTo(other, 1);
    assert.notEqual((await losses(other))[0], (await losses(first))[0]);
  },

  async draws(browser) {
    const page = await open(browser);
    await trainTo(page, 60);
    await page.locator("#pad").scrollIntoViewIfNeeded();
    const { x, y, width, height } = await page.locator("#pad").boundingBox();
    const ring = Array.from({ length: 25 }, (_, i) => [x + width * (0.5 + 0.27 * Math.sin(i / 3.8)), y + height * (0.5 - 0.38 * Math.cos(i / 3.8))]);
    await page.mouse.move(...ring[0]);
    await page.mouse.down();
    for (const place of ring) await page.mouse.move(...place);
    await page.mouse.up();
    await page.waitForFunction(() => document.querySelector("#subject").textContent.includes("your drawing"));
    await page.waitForFunction(() => document.querySelector("#answer strong")?.textContent === "0");
    await page.waitForSelector("#look-occlusion[data-state=done]");
    await page.waitForSelector("#look-adversarial[data-state=done]");
    for (const part of ["saliency", "occlusion", "adversarial"]) assert.ok((await shades(page, `#look-${part} canvas`)) > 4, part);
    const weak = await page.textContent("#look-adversarial p");
    assert.match(weak, /step 10 of 10/);
    await page.locator("#epsilon").fill("0.5");
    await page.waitForFunction(() => /not 0 · step 10 of 10/.test(document.querySelector("#look-adversarial p").textContent));
    await page.waitForSelector("#look-inversion[data-state=done]");
    assert.match(await page.textContent("#look-inversion p"), /step 120: error/);
    await page.waitForSelector("#look-ascent[data-state=done]");
    assert.deepEqual(page.told, []);
  },

  async opens_a_layer(browser) {
    const page = await open(browser, `${SMALL}&seed=1`);
    await stepTo(page, 1);
    for (const [layer, formula] of [["convolution", /Σ x · w/], ["ReLU", /max\(x, 0\)/], ["max pooling", /max\(/], ["dense", /Σ eʸ/]]) {
      await page.click(`button.open:has-text("${layer}")`); // over the one before
      await page.waitForFunction((source) => new RegExp(source).test(document.querySelector(".operation .formula")?.textContent), formula.source);
      if (layer === "convolution") {
        const text = (await page.textContent(".operation .formula")).replaceAll("−", "-");
        const [bias, product, sum] = text.match(/-?\d+\.\d+/g).map(Number);
        assert.ok(Math.abs(bias + product - sum) < 0.02, text);
      }
    }
    assert.deepEqual(page.told, []);
  },

  async keyboard(browser) {
    const page = await open(browser, SMALL);
    const tabTo = async (matches) => {
      for (let i = 0; i < 150; i++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate((selector) => document.activeElement.matches(selector), matches)) return;
      }
      assert.fail(`the keyboard does not reach ${matches}`);
    };
    await tabTo("#play");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => playground.step >= 3);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => !playground.playing);
    // what a choice makes anew keeps the focus
    for (const control of ["#batch", "[aria-label='Maps of layer 1']", "[aria-label='Activation of layer 2']"]) {
      await page.focus(control);
      const before = await page.evaluate(() => location.hash);
      await page.keyboard.press("ArrowDown");
      await page.waitForFunction((hash) => location.hash !== hash, before);
      await page.waitForFunction((control) => document.activeElement.matches(control), control);
    }
    await page.focus("#play");
    await tabTo("button.tile");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".operation:not([hidden])");
    await tabTo(".operation .pick");
    const before = await page.textContent(".operation .formula");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    await page.waitForFunction((text) => document.querySelector(".operation .formula").textContent !== text, before);
    await page.keyboard.press("Escape");
    await page.waitForSelector(".operation", { state: "hidden" });
    await tabTo("#pad");
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowDown");
    await page.waitForFunction(() => document.querySelector("#subject").textContent.includes("your drawing"));
    await tabTo("#epsilon");
    await tabTo("#train-own");
    await tabTo("#own-folder");
  },

  async bad_input(browser) {
    const page = await open(browser, "rate=banana&colour=red&seed=-1&hide=own,nothing");
    const told = await notice(page);
    for (const part of ["rate=banana", "colour", "seed=-1", "hide=own,nothing"]) assert.ok(told.includes(part), told);
    const before = await page.evaluate(() => decodeURIComponent(location.hash));
    for (const [text, words] of [
      ["conv 8 3x3 | swirl", "there is no layer “swirl”"],
      ["conv 8 3x3 | dense 7", "the data has 10 classes"],
      ["max_pool 2 | max_pool 2 | max_pool 2 | max_pool 2 | dense 10", "Layer 4"],
      ["dense 10 | conv 8 3x3", "Layer 2"],
      ["", "empty"],
    ]) {
      await page.fill("#network-text", text);
      await page.click("#apply-text");
      await page.waitForFunction((words) => document.querySelector("#notice").textContent.includes(words), words);
      assert.ok((await notice(page)).includes("keeps running"));
    }
    assert.equal(await page.evaluate(() => decodeURIComponent(location.hash)), before);
    await stepTo(page, 1);
    await page.setInputFiles(".file >> nth=0", [
      { name: "notes.txt", mimeType: "image/png", buffer: Buffer.from("no image") },
      { name: "dot.png", mimeType: "image/png", buffer: Buffer.from(PNG, "base64") },
    ]);
    await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("notes.txt”"));
    assert.equal(await page.locator(".group").first().locator(".thumbnail").count(), 1);
    assert.deepEqual(page.told, []);
  },

  async diverges(browser) {
    const page = await open(browser, "network=conv 4 3x3|relu|max_pool 2|dense 10&batch=16&optimizer=sgd&rate=1000");
    await page.click("#play");
    await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("is too large"));
    await page.waitForFunction(() => !playground.playing);
    const steps = await page.evaluate(() => playground.step);
    assert.ok((await losses(page)).every(Number.isFinite));
    await page.selectOption("#rate", "0.01");
    await stepTo(page, steps + 1);
    assert.ok(Number.isFinite((await losses(page)).at(-1)));
  },

  async own_data(browser) {
    const page = await open(browser, SMALL);
    const files = Array.from({ length: 3 }, (_, i) => ({ name: `${i}.png`, mimeType: "image/png", buffer: Buffer.from(PNG, "base64") }));
    await page.setInputFiles(".file >> nth=0", files);
    await page.waitForFunction(() => document.querySelectorAll(".group .thumbnail").length === 3);
    await page.click("#train-own");
    await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("two classes at least"));
    assert.ok(await page.isHidden("#add-to"), "an example of the data goes into no class");
    await page.locator("#pad").click();
    for (let i = 1; i <= 3; i++) {
      await page.click("#add-to button >> nth=1");
      await page.waitForFunction((n) => document.querySelectorAll(".group .thumbnail").length === n, 3 + i);
    }
    await page.click("#train-own");
    await page.waitForFunction(() => document.querySelector("#data").value === "own");
    await stepTo(page, 5);
    assert.equal(await page.evaluate(() => playground.losses.length), 5);
    const ground = await page.$eval("#pad", (pad) => [...pad.getContext("2d").getImageData(0, 0, 1, 1).data]);
    assert.deepEqual(ground, [0, 0, 0, 255], "one draws as before the training");
    assert.deepEqual(page.told, []);
    const again = await open(browser, await page.evaluate(() => location.hash.slice(1)));
    assert.match(await notice(again), /does not hold images of your own/);
    assert.equal(await again.$eval("#data", ({ value }) => value), "digits");
  },

  async drops(browser) {
    const page = await open(browser, SMALL);
    const folder = fs.mkdtempSync(path.join(require("node:os").tmpdir(), "folders-"));
    for (const name of ["c", "a", "b"]) {
      fs.mkdirSync(path.join(folder, name));
      for (const file of ["1.png", "2.png"]) fs.writeFileSync(path.join(folder, name, file), Buffer.from(PNG, "base64"));
    }
    await page.setInputFiles("#own-folder", folder);
    await page.waitForFunction(() => document.querySelectorAll(".group .thumbnail").length === 6);
    fs.rmSync(folder, { recursive: true });
    assert.deepEqual(await page.$$eval(".group-name", (all) => all.map(({ value }) => value)), ["a", "b", "c"]);
    await page.click("[aria-label='Remove class 2, b']");
    assert.equal(await page.locator(".group").count(), 2);
    const drop = (selector) => page.evaluate(([selector, text]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "dot.png", { type: "image/png" }));
      const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector(selector).dispatchEvent(event);
      return event.defaultPrevented;
    }, [selector, PNG]);
    assert.ok(await drop("h1"), "a file that misses its place leaves the page where it is");
    await drop("#pad");
    await page.waitForFunction(() => document.querySelector("#subject").textContent.includes("your image “dot.png”"));
    await drop(".own");
    await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("a folder for each class"));
    assert.deepEqual(page.told, []);
  },

  async tells_what_is_old(browser) {
    const page = await open(browser, `${SMALL}&seed=1`);
    await trainTo(page, 30);
    await page.waitForFunction(() => /^Step \d+: loss [\d.]+, [\d.]+ percent/.test(document.querySelector("[role=status]").textContent));
    await page.waitForSelector("#look-ascent[data-state=done]");
    await page.click("#step"); // other weights: what was made of the former ones is made anew
    await page.waitForSelector("#look-ascent[data-state=waiting]");
    await page.waitForSelector("#look-ascent[data-state=done]");
    await page.click("#play");
    assert.equal(await page.getAttribute("#answer", "aria-live"), "off");
    await page.click(".subject .thumbnail >> nth=3");
    assert.equal(await page.getAttribute(".subject .thumbnail >> nth=3", "aria-current"), "true");
    for (const part of ["occlusion", "adversarial", "inversion"]) await page.waitForSelector(`#look-${part}[data-state=waiting]`);
    await page.click("#play");
    await page.waitForFunction(() => document.querySelector("#answer").getAttribute("aria-live") === "polite");
    // a cell of the confusion matrix shows its images, and an image is looked at
    const cell = page.locator(".confusion td button").last();
    const count = Number(await cell.textContent());
    await cell.click();
    await page.waitForFunction((n) => document.querySelectorAll(".mistakes .thumbnail").length === n, Math.min(count, 18));
    const last = page.locator(".mistakes .thumbnail").last();
    await last.click();
    assert.equal(await last.getAttribute("aria-current"), "true");
    assert.ok((await last.getAttribute("title")).startsWith((await page.textContent("#subject")).replace("Now: ", "").split(",")[0]));
    await page.click("text=All mistakes");
    await page.waitForFunction(() => document.querySelector(".mistakes header p").textContent.includes("of 359 test images"));
    assert.deepEqual(page.told, []);
  },

  async switches(browser) {
    const page = await open(browser, SMALL);
    await stepTo(page, 1); // everything that moves begins anew
    for (const change of [
      () => page.click("text=filters"),
      () => page.selectOption("#data", "shapes"),
      () => page.fill("#network-text", "conv 6 5x5 stride 2 | relu | dense 6").then(() => page.click("#apply-text")),
      () => page.click("#play"),
      () => page.selectOption("#data", "digits"),
      () => page.selectOption("#optimizer", "momentum"),
      () => page.click("#reset"),
      () => page.click("button[aria-label^='Remove layer 1']"),
    ]) {
      await change();
      await page.waitForTimeout(150);
    }
    await page.waitForFunction(() => document.querySelectorAll(".layer").length === 3);
    await page.waitForFunction(() => playground.step > 2);
    assert.deepEqual(page.told, []);
  },

  async hides(browser) {
    const page = await open(browser, `${SMALL}&hide=optimizer,own,confusion,network`);
    for (const gone of ["#optimizer", "#train-own", ".confusion", "#network-text", ".add"]) assert.equal(await page.$(gone), null, gone);
    await page.waitForSelector("#rate");
    // a teacher makes such a link on the page
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.click("text=For a lesson");
    assert.ok(await page.isChecked("input[value=confusion]"));
    await page.uncheck("input[value=confusion]");
    await page.check("input[value=seed]");
    await page.click("text=Copy the lesson's link");
    await page.waitForSelector("text=Copied");
    const link = await page.evaluate(() => navigator.clipboard.readText());
    const lesson = await open(browser, link.split("#")[1]);
    for (const gone of ["#optimizer", "#train-own", "#network-text", "#seed"]) assert.equal(await lesson.$(gone), null, gone);
    await lesson.waitForSelector(".confusion");
    assert.deepEqual(lesson.told, []);
  },

  async fits(browser) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(browser, SMALL, { viewport: { width: 390, height: 800 }, colorScheme });
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 390, "nothing sticks out");
      await trainTo(page, 3);
      await page.click("button.tile >> nth=0");
      await page.waitForSelector(".operation .cells");
      const texts = (await page.evaluate(readTexts)).filter(({ place }) => !place.includes("hint")); // that one is on the pad
      assert.ok(texts.length > 100);
      for (const { place, text, color, ground } of texts) assert.ok(contrast(color, ground) > 4.5, `${text} in ${place}: ${color} on ${ground}`);
      const edge = await page.$eval("#seed", (each) => getComputedStyle(each).borderTopColor.match(/\d+/g).map(Number));
      const card = await page.$eval(".card", (each) => getComputedStyle(each).backgroundColor.match(/\d+/g).map(Number));
      assert.ok(contrast(edge, card) > 3, `an edge of ${edge} on ${card}`);
    }
  },

  // No test: the documents' pictures, written into the folder of a third argument.
  async pictures(browser) {
    const folder = process.argv[4];
    const page = await open(browser, "", { viewport: { width: 1200, height: 800 }, deviceScaleFactor: 1 });
    await trainTo(page, 120);
    await page.evaluate(() => (document.querySelector(".bar").style.position = "static"));
    await page.click(".layer.conv:not(:nth-of-type(2)) .tile >> nth=4");
    await page.waitForTimeout(1500);
    await page.locator(".network").screenshot({ path: path.join(folder, "playground_layer.png") });
    await page.click(".operation .close");
    await page.waitForSelector("#look-ascent[data-state=done]");
    await page.waitForTimeout(500);
    const bottom = await page.$eval(".looking", (each) => each.getBoundingClientRect().bottom + scrollY);
    await page.screenshot({ path: path.join(folder, "playground.png"), fullPage: true, clip: { x: 0, y: 0, width: 1200, height: bottom + 16 } });
  },

  async checkpoint(browser) {
    const page = await open(browser);
    const { network } = JSON.parse(/id="data">(.*?)<\/script>/.exec(fs.readFileSync(file, "utf8"))[1]);
    const found = await page.evaluate((count) => playground.logits(count), network.logits.length);
    network.logits.forEach((row, i) => row.forEach((value, k) => assert.ok(Math.abs(value - found[i][k]) < 1e-4, `${value} is ${found[i][k]}`)));
    await stepTo(page, 1);
    assert.ok(Number.isFinite((await losses(page))[0]));
    await page.click("#reset");
    await page.waitForFunction(() => playground.step === 0);
    assert.deepEqual(await page.evaluate((count) => playground.logits(count), network.logits.length), found);
    assert.deepEqual(page.told, []);
  },
};

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

// All texts that are seen, each with its colour and that of the ground behind it; runs on the page.
function readTexts() {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = numbers(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0.9) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const [text, element] = [walk.currentNode.data.trim(), walk.currentNode.parentElement];
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    found.push({ text, place: element.getAttribute("class") ?? element.tagName, color: numbers(element instanceof SVGElement ? style.fill : style.color), ground: ground(element) });
  }
  return found;
}

// Of two colours, by WCAG 2.
function contrast(...colours) {
  const [low, high] = colours
    .map((colour) => colour.slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)))
    .map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b)
    .sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: QUIET });
  try {
    await scenarios[name](browser);
  } finally {
    await browser.close();
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
