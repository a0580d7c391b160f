// Opens a page in a real browser and waits until it says "done" in its title; tells what the browser minded as JSON.
import { createRequire } from "node:module";

const [tools, chromium, url] = process.argv.slice(2);
const { chromium: playwright } = createRequire(`${tools}/`)("playwright-core");

const browser = await playwright.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage();
page.setDefaultTimeout(120_000);
const faults = [];
page.on("pageerror", (error) => faults.push(String(error)));

const saw = {};
try {
  await page.goto(url);
  await page.waitForFunction(() => document.title === "done");
} catch (error) {
  saw.stopped = String(error);
}
await browser.close();
console.log(JSON.stringify({ ...saw, faults }));
