// The server's page in a real browser: page.js MODULES URL MODEL IMAGE CHART OUT
//
// MODULES has playwright-core and axe-core. By keyboard alone a prediction is asked for and read; nothing leaves the server; axe finds no
// violation, at the widths of a phone and of a desk, in light and dark. Pictures of what was seen go to OUT. The last line is a JSON
// object of what the page says.
"use strict";
const path = require("path");
const [modules, url, model, image, chart, out] = process.argv.slice(2);
const { chromium } = require(path.resolve(modules, "playwright-core"));
const axe = require.resolve(path.resolve(modules, "axe-core"));

async function main() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
  const wrong = [];
  const told = {};
  for (const [name, width, colorScheme] of [["phone", 390, "light"], ["desk", 1280, "dark"]]) {
    const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: false });
    const page = await context.newPage();
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
    page.on("request", (request) => /^(http:\/\/127\.0\.0\.1|data:)/.test(request.url()) || wrong.push(`asks ${request.url()}`));
    await page.goto(`http://${url}/`);
    await page.waitForSelector(`#model option[value="${model}"]`, { state: "attached" });
    await page.selectOption("#model", model);
    await page.waitForSelector("#card table");
    await page.setInputFiles("#files", [image, chart]);
    // By keyboard: to the button, and press it.
    await page.focus("#files");
    for (let k = 0; k < 10; k++) {
      await page.keyboard.press("Tab");
      if ((await page.evaluate(() => document.activeElement.id)) === "predict") break;
    }
    await page.keyboard.press("Enter");
    await page.waitForSelector("#results article", { timeout: 60000 });
    const seen = await page.evaluate(() => ({
      status: document.getElementById("status").textContent,
      text: document.getElementById("results").innerText,
      picture: [...document.querySelectorAll("#results img")].map((of) => of.naturalWidth),
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    }));
    if (seen.wide > 0) wrong.push(`${name}: ${seen.wide} pixels beside the page`);
    // The heat map can be taken away, and the window changed.
    const before = await page.getAttribute("#results img", "src");
    await page.uncheck("#results input[type=checkbox]");
    if ((await page.getAttribute("#results img", "src")) === before) wrong.push(`${name}: the heat map stays`);
    await page.check("#results input[type=checkbox]");
    await page.focus("#results input[type=range]");
    await page.keyboard.press("ArrowRight");
    if (!/brightness\(1\d\d%\)/.test(await page.getAttribute("#results img", "style"))) wrong.push(`${name}: the brightness stays`);
    // The page's own policy lets no script of others in: axe comes by the debugger.
    const source = require("fs").readFileSync(axe, "utf8");
    await page.evaluate(source);
    const found = await page.evaluate(() => window.axe.run());
    found.violations.forEach(({ id, nodes }) => wrong.push(`${name}: axe ${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`));
    await page.screenshot({ path: path.join(out, `${name}.png`), fullPage: true });
    // What is no file of either kind is said, in words.
    await page.click("button[type=reset]");
    await page.setInputFiles("#files", [{ name: "Mustermann.json", mimeType: "application/json", buffer: Buffer.from("{") }]);
    await page.click("#predict");
    await page.waitForSelector("#status.wrong");
    told[name] = { ...seen, refused: await page.textContent("#status"), axe: found.passes.length };
    await context.close();
  }
  await browser.close();
  // A refusal is said in the console, too.
  const left = wrong.filter((text) => !/status of 400/.test(text));
  if (left.length > 0) throw new Error(left.join("\n"));
  console.log(JSON.stringify(told));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
