// Uses the console in a real browser, as a person would, and tells what it saw as JSON.
import { createRequire } from "node:module";

const [tools, chromium, url, order, parked, picture] = process.argv.slice(2);
const { chromium: playwright } = createRequire(`${tools}/`)("playwright-core");

const browser = await playwright.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 760 } });
page.setDefaultTimeout(40_000);
const faults = [];
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
page.on("pageerror", (error) => faults.push(String(error)));
page.on("request", (request) => request.url().startsWith(url) || faults.push(`asked ${request.url()}`));

const saw = {};
try {
  await page.goto(`${url}/`);
  await page.getByRole("link", { name: order }).click();
  await page.getByRole("heading", { name: order }).waitFor();
  await page.getByText("OrderPlaced", { exact: true }).waitFor();
  saw.timeline = await page.locator(".timeline strong").allTextContents();
  saw.facts = await page.locator(".facts").innerText();
  await page.locator(".timeline summary").first().click();
  if (picture) await page.screenshot({ path: picture });
  await page.getByRole("button", { name: "Cancel the order" }).click();
  await page.locator("h1 .status.undone").waitFor();
  await page.getByText("OrderCanceled", { exact: true }).waitFor();
  saw.after = await page.locator("h1 .status").innerText();
  await page.getByRole("link", { name: "Orders", exact: true }).click();
  await page.getByLabel("status").selectOption("canceled");
  await page.getByText("1 orders, newest first").waitFor();
  saw.filtered = await page.locator("tbody tr").count();
  await page.getByRole("link", { name: "Sagas" }).click();
  const stuck = page.getByRole("row").filter({ has: page.getByRole("link", { name: parked }) });
  await stuck.getByText("parked", { exact: true }).waitFor();
  saw.parked = await stuck.innerText();
  await stuck.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Resume: the order is").waitFor();
  await page.getByRole("link", { name: "Views" }).click();
  await page.getByRole("cell", { name: "mypage" }).waitFor();
  await page.getByRole("link", { name: "Flows" }).click();
  await page.getByRole("heading", { name: /marketplace/ }).waitFor();
  await page.getByLabel("Order id").fill("no such order");
  await page.getByRole("button", { name: "Find" }).click();
  await page.getByText("order_not_found").waitFor();
  saw.language = await page.locator("html").getAttribute("lang");
} catch (error) {
  saw.stopped = String(error);
  saw.text = await page.locator("body").innerText();
}
await browser.close();
console.log(JSON.stringify({ ...saw, faults }));
