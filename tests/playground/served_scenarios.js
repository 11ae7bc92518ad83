// What visitors do on the served page, in headless Chromium: node served_scenarios.js ADDRESS PHOTO.png
// Ends with status 0, or with the first thing that was not as it should be.
const assert = require("node:assert/strict");
const path = require("node:path");
const { createRequire } = require("node:module");

const browserFolder = path.join(__dirname, "../../cnn_jax/playground/browser/package.json");
const { chromium } = createRequire(browserFolder)("playwright-core");

const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const [address, photograph] = process.argv.slice(2);

async function visit(browser) {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  page.setDefaultTimeout(60000);
  const told = [];
  const foreign = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && told.push(message.text()));
  page.on("pageerror", (error) => told.push(error.stack));
  page.on("request", (request) => /^(data|blob):/.test(request.url()) || request.url().startsWith(address) || foreign.push(request.url()));
  await page.goto(address);
  const panel = page.locator("#served");
  const status = page.locator("#served [role=status]").first();
  const says = async (text) => {
    const until = Date.now() + 60000;
    while (!(await status.textContent()).includes(text)) {
      assert.ok(Date.now() < until, `${text}: not in "${await status.textContent()}"`);
      await page.waitForTimeout(20);
    }
  };
  const shows = (selector, count) =>
    page.waitForFunction(([each, n]) => document.querySelectorAll(each).length === n, [`#served ${selector}`, count], { polling: 50 });
  const start = panel.getByRole("button", { name: "Start", exact: true });
  const stop = page.locator("#served").getByRole("button", { name: "Stop" }).first();
  await says("ready");

  // by keyboard alone: another photograph, and what is on it
  await panel.getByRole("radio", { name: "photo 0" }).focus();
  await page.keyboard.press("ArrowRight");
  assert.ok(await panel.getByRole("radio", { name: "photo 1" }).isChecked());
  await start.focus();
  await page.keyboard.press("Enter");
  await says("%");
  await shows("ol li", 4);
  await shows(".pictures img", 1);

  await panel.getByLabel("Task").selectOption("explain");
  await panel.getByLabel("Method").selectOption("saliency");
  await panel.getByLabel(/^For the class/).fill("star");
  await start.click();
  await says("what speaks for star");
  await shows(".pictures img", 3);

  await panel.getByLabel(/^For the class/).fill("stars");
  await start.click();
  await says("unknown class 'stars'");
  await panel.getByLabel(/^For the class/).fill("");

  // an attack, and again when its budget is moved
  await panel.getByLabel("Task").selectOption("attack");
  await panel.getByLabel("Steps").fill("3");
  await start.click();
  await says("largest change 8.00/255");
  await panel.getByLabel("Budget").focus();
  await page.keyboard.press("End");
  await says("largest change 64.00/255");

  // what goes on is stopped; of so many steps it does not end by itself before
  await panel.getByLabel("Steps").fill("100000");
  await start.click();
  await page.waitForSelector("#served .curves svg");
  await stop.click();
  assert.match(await status.textContent(), /^stopped at step \d+ of 100000$/);
  assert.ok(await start.evaluate((each) => each === document.activeElement), "the focus goes on to what works");

  // a photograph of one's own; and what is none
  await page.locator("#served input[type=file]").setInputFiles([photograph]);
  await says("own.png is here");
  assert.ok(await panel.getByRole("radio", { name: "own.png" }).isChecked());
  await panel.getByLabel("Task").selectOption("classify");
  await start.click();
  await says("%");
  // Chromium itself tells of an answer that refuses, at a moment of its own
  const refusal = page.waitForEvent("console", (message) => message.type() === "error");
  await page.locator("#served input[type=file]").setInputFiles([{ name: "text.png", mimeType: "image/png", buffer: Buffer.from("no image") }]);
  await says("text.png: not an image");
  told.splice(told.indexOf((await refusal).text()), 1);

  const nameless = await page.$$eval("#served :is(svg[role=img], img, button, select, input)", (found) =>
    found.filter((each) => !(each.getAttribute("aria-label") || each.alt || each.title || each.textContent.trim() || each.labels?.length)).map((each) => each.outerHTML),
  );
  assert.deepEqual(nameless, [], "pictures and controls have names");
  await page.setViewportSize({ width: 360, height: 740 });
  const [shown, wide] = await page.$eval("#served", (each) => [each.clientWidth, each.scrollWidth]);
  assert.ok(wide <= shown, `the panel is ${wide} wide on a phone of ${shown}`);
  assert.deepEqual(told, []);
  assert.deepEqual(foreign, []);
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: QUIET });
  try {
    await visit(browser);
  } finally {
    await browser.close();
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
