// Makes a call from the reference in a real browser, as a person would, and tells what it saw as JSON.
import { createRequire } from "node:module";

const [tools, chromium, url, order, picture] = process.argv.slice(2);
const { chromium: playwright } = createRequire(`${tools}/`)("playwright-core");

const browser = await playwright.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
page.setDefaultTimeout(100_000);
const faults = [];
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
page.on("pageerror", (error) => faults.push(String(error)));
page.on("request", (request) => /^(data:|blob:)/.test(request.url()) || request.url().startsWith(url) || faults.push(`asked ${request.url()}`));

const saw = {};
try {
  await page.goto(`${url}/docs#/orders/getOrder`);
  const call = page.locator("#operations-orders-getOrder");
  await call.waitFor();
  if (!(await call.locator(".opblock-body").isVisible())) await call.locator(".opblock-summary-control").first().click();
  await call.getByRole("button", { name: "Try it out" }).click();
  await call.locator("tr[data-param-name=order_id] input").fill(order);
  await call.getByRole("button", { name: "Execute" }).click();
  const answer = call.locator(".live-responses-table .response");
  await answer.waitFor();
  saw.status = (await answer.locator(".response-col_status").innerText()).trim().split(/\s/)[0];
  saw.answer = await answer.locator(".response-col_description").innerText();
  if (picture) await page.screenshot({ path: picture });
} catch (error) {
  saw.stopped = String(error);
  saw.text = (await page.locator("body").innerText()).slice(0, 2000);
}
await browser.close();
console.log(JSON.stringify({ ...saw, faults }));
