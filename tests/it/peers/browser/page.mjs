// Looks at the page on the metrics port of URL with Chromium, and writes what it sees to DIRECTORY.
// Ends with an error at the first thing that is not as it should be.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [url, directory] = process.argv.slice(2);
const timeout = 60_000;
await mkdir(directory, { recursive: true });

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
  protocolTimeout: 2 * timeout,
  timeout,
});
try {
  for (const width of [1280, 390]) {
    await charts(width);
    await withoutScripts(width);
  }
  await gone();
  await otherMetrics();
} finally {
  await browser.close();
}
console.log("as it should be");

/** A page that notes what the browser complains of. */
async function open(width, { scripts = true, metrics, go = true } = {}) {
  const page = await browser.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`${error.stack ?? error}`));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("request", (request) => {
    const asked = request.url();
    if (!asked.startsWith(url) && !asked.startsWith("data:")) complaints.push(`asks ${asked}`);
    if (!metrics) return;
    const isMetrics = asked === `${url}metrics`;
    request[isMetrics ? "respond" : "continue"](
      isMetrics ? { contentType: "text/plain; charset=utf-8", body: metrics() } : {},
    );
  });
  await page.evaluateOnNewDocument(() => {
    document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
      console.log(`violates ${violatedDirective}: ${blockedURI}`),
    );
  });
  if (metrics) await page.setRequestInterception(true);
  await page.setJavaScriptEnabled(scripts);
  await page.setViewport({ width, height: width > 600 ? 900 : 844, deviceScaleFactor: width > 600 ? 1 : 2 });
  page.setDefaultTimeout(timeout);
  if (go) await page.goto(url);
  return { page, complaints };
}

/** The page in both colour schemes. */
async function shoot(page, name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.screenshot({ path: join(directory, `${name}-${scheme}.png`), fullPage: true });
  }
}

/** Nothing is wider than the page. */
async function assertFits(page, width) {
  const wide = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    const texts = [...document.querySelectorAll("svg")].flatMap((svg) => {
      const around = svg.getBoundingClientRect();
      const boxes = [...svg.querySelectorAll("text")].map((text) => [
        text.textContent,
        text.getBoundingClientRect(),
      ]);
      return boxes
        .filter(([, box]) => box.left < around.left || box.right > around.right)
        .map(([text]) => text);
    });
    return { overflow: scrollWidth - clientWidth, texts };
  });
  assert.deepEqual(wide, { overflow: 0, texts: [] }, `at ${width}`);
}

/** Waits until the chart of this title has so many points in its first line. */
async function waitForPoints(page, title, points) {
  await page.waitForFunction(
    (title, points) => {
      const charts = [...document.querySelectorAll("figure")];
      const chart = charts.find((figure) => figure.querySelector("h2").textContent.trim().startsWith(title));
      const lines = [...(chart?.querySelectorAll("path.line") ?? [])].map((line) => line.getAttribute("d"));
      return lines.some((line) => line.split("L").length > points && !/NaN|undefined|Infinity/.test(line));
    },
    { timeout },
    title,
    points,
  );
}

async function charts(width) {
  const { page, complaints } = await open(width);
  for (const title of [
    "Requests",
    "Latency",
    "Errors per",
    "Open now",
    "Bytes",
    "Limits hit",
    "Calls by method",
    "Errors by method",
  ]) {
    await waitForPoints(page, title, 4);
  }
  assert.equal(await page.$eval("body", (body) => body.className), "live");
  assert.equal(await page.$eval("#plain", (plain) => plain.hidden), true);
  const text = await page.$eval("main", (main) => main.innerText);
  assert.match(text, /p99\.9 [\d.]+ (µs|ms|s)/);
  assert.doesNotMatch(text, /NaN|undefined|Infinity/);
  await assertFits(page, width);
  await shoot(page, `charts-${width}`);

  const buttons = await page.$$eval("nav button", (buttons) => buttons.map((button) => button.textContent));
  for (const name of ["All servers", "Router", "closure", "All clients"]) {
    assert.ok(buttons.includes(name), `${name} of ${buttons}`);
    await page.evaluate(
      (name) =>
        [...document.querySelectorAll("nav button")].find((button) => button.textContent === name).click(),
      name,
    );
    await waitForPoints(page, "Requests", 4);
    await assertFits(page, width);
    if (name === "All clients") await shoot(page, `clients-${width}`);
  }

  const chart = await page.$("figure svg");
  const box = await chart.boundingBox();
  await page.mouse.move(box.x + box.width - 20, box.y + 40);
  await page.waitForSelector("path.cursor", { timeout });
  await page.screenshot({ path: join(directory, `hover-${width}.png`) });
  await assertFits(page, width);
  assert.deepEqual(complaints, []);
  await page.close();
}

async function withoutScripts(width) {
  const { page, complaints } = await open(width, { scripts: false });
  const text = await page.$eval("#plain", (plain) => plain.innerText);
  assert.match(text, /arrpc_server_req_seconds/);
  assert.match(text, /method shop\.buy/);
  assert.equal(await page.$eval("#live", (live) => live.hidden), true);
  await assertFits(page, width);
  await shoot(page, `tables-${width}`);
  assert.deepEqual(complaints, []);
  await page.close();
}

async function gone() {
  const { page } = await open(1280);
  await waitForPoints(page, "Requests", 3);
  const title = await page.title();
  assert.match(title, new RegExp(`^[^:]+:${new URL(url).port} · arrpc$`));
  const dot = () =>
    page.$eval("#state", (state) => getComputedStyle(state, "::before").backgroundColor);
  const green = await dot();
  await page.setOfflineMode(true);
  await page.waitForSelector("body.gone", { timeout });
  assert.notEqual(await dot(), green);
  assert.equal(await page.title(), `Gone: ${title}`);
  assert.match(
    await page.$eval("#state", (state) => state.textContent),
    /^Cannot reach the server since \d\d:\d\d:\d\d, trying again$/,
  );
  await shoot(page, "gone-1280");
  const red = await dot(); // in the colours of the last picture
  await page.setOfflineMode(false);
  await page.waitForSelector("body.live", { timeout });
  await page.waitForFunction(() => document.querySelectorAll("figure path.line")[1], { timeout });
  assert.equal(await page.title(), title);
  assert.notEqual(await dot(), red);
  await page.close();
}

/** What this server does not have: nothing at all, one client, counters that begin anew, bad labels. */
async function otherMetrics() {
  const hostile = '<img src=x onerror=alert(1)>"}\\u2028\u2028 9\r{';
  const quoted = hostile.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  let requests = 0;
  let text = () => "";
  const { page, complaints } = await open(1280, { metrics: () => text() });
  await page.waitForSelector(".none:not([hidden])", { visible: true, timeout });
  assert.equal((await page.$$("figure:not([hidden])")).length, 0);
  await shoot(page, "empty-1280");

  text = () =>
    `arrpc_client_req_seconds_count{remote_address="a:1"} ${(requests = (requests + 1000) % 3000)}\n` +
    `arrpc_client_req_bytes_sum{remote_address="a:1"} 5\narrpc_client_connections 2\n` +
    `arrpc_client_errors_total{reason="${quoted}",remote_address="a:1"} 7\n`;
  await waitForPoints(page, "Requests", 6);
  assert.equal((await page.$$("nav:not([hidden]) button")).length, 0);
  const top = await page.$eval("figure svg", (svg) => svg.textContent);
  assert.doesNotMatch(top, /[−-]\d+ k/, "no counter falls");
  assert.equal((await page.$$("img")).length, 0);
  const cells = await page.$$eval("td bdi", (cells) => cells.map((cell) => cell.textContent));
  assert.ok(cells.includes(hostile), `${cells}`);
  await shoot(page, "client-only-1280");
  assert.deepEqual(complaints, []);
  await page.close();
}
