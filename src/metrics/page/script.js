// Charts of what `metrics` says once a second. Keeps five minutes, here and nowhere else. What a
// peer may have had a hand in comes into the page as text, never as HTML.
"use strict";

const PERIOD = 1_000; // all times in milliseconds
const PATIENCE = 10_000;
const KEPT = 300_000;
const MAX_LINES = 5;
const MAX_ROWS = 20;

// Units: how a value is written.

const scaled =
  (...steps) =>
  (value) => {
    if (value == null) return "–";
    const [size, unit] = steps.findLast(([size]) => value >= size) ?? steps[0];
    return `${Number((value / size).toPrecision(3))}${unit}`;
  };
const count = scaled([1, ""], [1e3, " k"], [1e6, " M"], [1e9, " G"]);
const bytes = scaled([1, " B"], [1e3, " kB"], [1e6, " MB"], [1e9, " GB"]);
const duration = scaled([1e-6, " µs"], [1e-3, " ms"], [1, " s"]);
const clock = (time) => new Date(time).toTimeString().slice(0, 8);

// What is read.

function parse(text) {
  const series = [];
  for (const line of text.split("\n")) {
    const [, key, side, name, values, value] = /^(arrpc_(server|client)_(\w+)(?:\{(.*)\})?) (\S+)$/s.exec(line) ?? [];
    if (!key) continue;
    const labels = {};
    for (const [, label, quoted] of (values ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/gs)) {
      labels[label] = quoted.replace(/\\(.)/gs, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    series.push({ key, side, name, labels, value: Number(value) });
  }
  return series;
}

/** Gives each series its growth per second since `earlier`, its values by key. */
function addRates(series, earlier, seconds) {
  for (const one of series) {
    const before = earlier.get(one.key) ?? 0; // what is new began at 0
    one.rate = (one.value < before ? one.value : one.value - before) / seconds; // so did what fell
  }
}

/** The servers and clients that can be looked at, each a choice of series. */
function viewsOf(series) {
  const view = (name, side, of) => ({ name, side, of });
  const all = (name, side) => view(name, side, (one) => one.side === side);
  const handlers = new Set(series.flatMap(({ labels }) => labels.handler_func ?? []));
  const views = [...handlers].sort().map((name) => view(name, "server", ({ labels }) => labels.handler_func === name));
  if (views.length > 1) views.unshift(all("All servers", "server"));
  if (series.some(({ side }) => side === "client")) views.push(all("All clients", "client"));
  return views;
}

/** What the charts and tables show of some series. */
function measure(series) {
  const by = (name, label, field) => {
    const sums = new Map();
    for (const one of series) {
      if (one.name !== name || one[field] === undefined) continue;
      const value = one.labels[label] ?? "";
      sums.set(value, (sums.get(value) ?? 0) + one[field]);
    }
    return sums;
  };
  const sum = (name, field) => [...by(name, "", field).values()][0];
  const counted = (name, label) => ({ rates: by(name, label, "rate"), totals: by(name, label, "value") });
  const known = series.some((one) => one.rate !== undefined); // of two readings, not of one
  const buckets = [...by("req_duration_seconds_bucket", "le", "rate")];
  return {
    requests: sum("req_seconds_count", "rate"),
    errors: sum("errors_total", "rate") ?? (known ? 0 : undefined),
    bytes: sum("req_bytes_sum", "rate"),
    connections: sum("connections", "value"),
    inFlight: sum("requests_in_flight", "value"),
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    p999: quantile(buckets, 0.999),
    calls: counted("method_calls_total", "method"),
    failures: counted("method_errors_total", "method"),
    limits: counted("refusals_total", "limit"),
    reasons: counted("errors_total", "reason"),
    peers: counted("req_seconds_count", "remote_address"),
  };
}

/** As Prometheus does it: evenly spread within a bucket; beyond the last bound, that bound. */
function quantile(buckets, part) {
  const bounds = buckets.map(([le, rate]) => [le === "+Inf" ? Infinity : Number(le), rate]).sort(([a], [b]) => a - b);
  const rank = part * (bounds.at(-1)?.[1] ?? 0);
  if (rank === 0) return;
  let [below, lower] = [0, 0];
  for (const [bound, rate] of bounds) {
    if (rate >= rank) return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (rate - below);
    [below, lower] = [rate, bound];
  }
}

// What is shown.

const CHARTS = [
  { title: "Requests", lines: (m) => ({ requests: m.requests }) },
  { title: "Latency", unit: duration, log: true, lines: (m) => ({ p50: m.p50, p99: m.p99, "p99.9": m.p999 }) },
  { title: "Errors", lines: (m) => ({ errors: m.errors }) },
  { title: "Open now", whole: true, lines: (m) => ({ connections: m.connections, "requests in flight": m.inFlight }) },
  { title: "Bytes of requests", unit: bytes, lines: (m) => ({ bytes: m.bytes }) },
  { title: "Limits hit", by: "limits" },
  { title: "Calls by method", by: "calls" },
  { title: "Errors by method", by: "failures" },
];
const TABLES = [
  { title: "Methods", columns: { calls: "calls", errors: "failures" } },
  { title: "Limits hit", columns: { hits: "limits" } },
  { title: "Errors by reason", columns: { errors: "reasons" } },
  { title: "Requests by address", columns: { requests: "peers" } },
];

const maker =
  (space) =>
  (name, attributes = {}, ...children) => {
    const element = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
const html = maker("http://www.w3.org/1999/xhtml");
const svg = maker("http://www.w3.org/2000/svg");
const byId = (id) => document.getElementById(id);

let views = [];
let chosen; // the name of a view
let cursor; // a time that the pointer is at
let earlier; // the last reading
const samples = []; // { time, measures: by view, or nothing where there was no answer }

for (const chart of CHARTS) {
  chart.legend = html("ul", { class: "legend" });
  chart.svg = svg("svg", { role: "img", "aria-label": chart.title });
  const per = chart.log || chart.whole ? "" : "per second";
  const title = html("h2", {}, `${chart.title} `, html("small", {}, per));
  chart.figure = html("figure", {}, title, chart.legend, chart.svg);
  const point = (time) => {
    cursor = time;
    drawCharts();
  };
  chart.svg.addEventListener("pointermove", ({ clientX }) =>
    point(chart.timeAt(clientX - chart.svg.getBoundingClientRect().left)),
  );
  chart.svg.addEventListener("pointerleave", () => point(undefined));
}
const nothing = html("p", { class: "none" }, "No server or client here has metrics yet.");
const cards = html("div", { class: "cards" }, ...CHARTS.map((chart) => chart.figure));
byId("live").append(nothing, cards);

function show() {
  nothing.hidden = views.length > 0;
  drawViews();
  drawCharts();
  const latest = measuresOf(samples.findLast(({ measures }) => measures));
  for (const section of cards.querySelectorAll("section")) section.remove();
  if (latest) cards.append(...TABLES.flatMap((table) => drawTable(table, latest)));
}

const viewed = () => views.find(({ name }) => name === chosen) ?? views[0];
const measuresOf = (sample) => sample?.measures?.get(viewed()?.name);

/** One button for each view, if there is a choice. Not made anew each time, lest one loses the focus. */
function drawViews() {
  const buttons = byId("views");
  while (buttons.childElementCount < views.length) {
    const button = html("button", { type: "button" });
    button.addEventListener("click", () => {
      chosen = button.textContent;
      show();
    });
    buttons.append(button);
  }
  while (buttons.childElementCount > views.length) buttons.lastChild.remove();
  views.forEach((view, index) => {
    buttons.children[index].textContent = view.name;
    buttons.children[index].setAttribute("aria-pressed", view === viewed());
  });
  buttons.hidden = views.length < 2;
}

function drawCharts() {
  const latest = measuresOf(samples.findLast(({ measures }) => measures));
  for (const chart of CHARTS) {
    const hasNone = chart.by && !latest?.[chart.by].totals.size;
    // That no limit was hit is worth a chart; that there are no methods is not.
    chart.figure.hidden = !latest || (hasNone && (chart.by !== "limits" || viewed().side === "client"));
    if (!chart.figure.hidden) drawChart(chart, latest);
  }
}

/** The lines of a chart over all samples: those of fixed names, or the largest of many. */
function linesOf({ by, lines }, latest) {
  const measures = samples.map(measuresOf);
  if (!by) {
    const names = Object.keys(lines(latest));
    const found = names.map((name) => ({ name, values: measures.map((one) => one && lines(one)[name]) }));
    return found.filter(({ values }) => values.some((value) => value !== undefined));
  }
  const counted = [...latest[by].totals].filter(([, total]) => total > 0);
  const largest = counted.sort(([, a], [, b]) => b - a).map(([name]) => name);
  const rates = measures.map((one) => one?.[by].rates);
  const sumOf = (names) =>
    rates.map((rate) => (rate?.size ? names.reduce((sum, name) => sum + (rate.get(name) ?? 0), 0) : undefined));
  const shown = largest.slice(0, MAX_LINES).sort(); // in an order that does not change all the time
  const found = shown.map((name) => ({ name, values: sumOf([name]) }));
  const rest = largest.slice(MAX_LINES);
  if (rest.length) found.push({ name: `${rest.length} more`, values: sumOf(rest) });
  return found;
}

function drawChart(chart, latest) {
  const lines = linesOf(chart, latest);
  const unit = chart.unit ?? count;
  const distance = (sample) => Math.abs(sample.time - cursor);
  const at =
    cursor === undefined
      ? samples.length - 1
      : samples.reduce((best, sample, index) => (distance(sample) < distance(samples[best]) ? index : best), 0);
  chart.legend.replaceChildren(
    ...lines.map(({ name, values }, index) =>
      html("li", {}, html("i", { class: `c${index}` }), html("bdi", {}, name), " ", html("b", {}, unit(values[at]))),
    ),
  );

  const [width, height] = [chart.svg.clientWidth, chart.svg.clientHeight];
  const [left, right, top, bottom] = [52, width - 8, 8, height - 24];

  const now = samples.at(-1).time;
  const span = Math.min(KEPT, Math.max(30_000, now - samples[0].time));
  const x = (time) => right - ((now - time) / span) * (right - left);
  chart.timeAt = (at) => now - ((right - at) / (right - left)) * span;

  const known = lines.flatMap(({ values }) => values).filter((value) => value !== undefined);
  const marks = chart.log ? decades(known) : steps(Math.max(0, ...known), chart.whole);
  const level = chart.log ? (value) => Math.log10(Math.max(value, marks[0])) : (value) => value;
  const [low, high] = [level(marks[0]), level(marks.at(-1))];
  const y = (value) => bottom - ((level(value) - low) / (high - low)) * (bottom - top);

  const parts = [];
  const write = (x, y, anchor, text) => parts.push(svg("text", { x, y, "text-anchor": anchor }, text));
  const draw = (name, path) => parts.push(svg("path", { class: name, d: path }));
  for (const mark of marks) {
    draw("grid", `M${left} ${y(mark)}H${right}`);
    write(left - 8, y(mark) + 4, "end", unit(mark));
  }
  const writeTime = (time, text) => {
    const place = x(time);
    write(place, height - 4, place > right - 24 ? "end" : place < left + 24 ? "start" : "middle", text);
  };
  if (cursor === undefined) {
    const every = [10_000, 15_000, 30_000, 60_000].find((each) => each * 5 >= span);
    writeTime(now, "now");
    for (let ago = every; ago <= span; ago += every) {
      writeTime(now - ago, every < 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`);
    }
  } else {
    writeTime(samples[at].time, clock(samples[at].time));
    draw("cursor", `M${x(samples[at].time)} ${top}V${bottom}`);
  }
  lines.forEach(({ values }, index) => {
    for (const points of runs(values, x, y)) {
      if (lines.length === 1) draw("area c0", `M${points.join("L")}V${bottom}H${points[0].split(" ")[0]}Z`);
      draw(`line c${index}`, `M${points[0]}h0L${points.join("L")}`);
    }
  });
  if (!known.length) {
    write((left + right) / 2, (top + bottom) / 2 + 4, "middle", samples.length < 3 ? "reading …" : "none so far");
  }
  chart.svg.replaceChildren(...parts);
}

/** The points of a line, in runs without a gap. */
function runs(values, x, y) {
  const found = [[]];
  values.forEach((value, index) => {
    if (value === undefined) found.push([]);
    else found.at(-1).push(`${x(samples[index].time).toFixed(1)} ${y(value).toFixed(1)}`);
  });
  return found.filter((points) => points.length);
}

/** Round marks from 0 to `max` or beyond. */
function steps(max, whole) {
  const rough = Math.max(max, whole ? 2 : 1e-3) / 3;
  const size = 10 ** Math.floor(Math.log10(rough));
  let step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough);
  if (max === 0) step = 1;
  if (whole) step = Math.max(1, step);
  return Array.from({ length: Math.max(1, Math.ceil(max / step)) + 1 }, (_, index) => index * step);
}

/** The powers of ten around `values`. */
function decades(values) {
  const known = values.length ? values : [1e-5, 1e-2];
  const [low, high] = [Math.floor(Math.log10(Math.min(...known))), Math.ceil(Math.log10(Math.max(...known)))];
  return Array.from({ length: Math.max(1, high - low) + 1 }, (_, index) => 10 ** (low + index));
}

function drawTable({ title, columns }, measures) {
  const counts = Object.values(columns).map((name) => measures[name]);
  const rows = [...counts[0].totals].sort(([, a], [, b]) => b - a);
  const cells = (name) =>
    counts.flatMap(({ rates, totals }) => [
      html("td", {}, count(rates.size ? (rates.get(name) ?? 0) : undefined)),
      html("td", {}, (totals.get(name) ?? 0).toLocaleString("en")),
    ]);
  const body = rows
    .slice(0, MAX_ROWS)
    .map(([name]) => html("tr", {}, html("td", {}, html("bdi", {}, name)), ...cells(name)));
  if (rows.length > MAX_ROWS) body.push(html("tr", {}, html("td", {}, `and ${rows.length - MAX_ROWS} more`)));
  const heads = Object.keys(columns).flatMap((head) => [`${head}/s`, head]);
  const head = html("tr", {}, html("td"), ...heads.map((text) => html("th", { scope: "col" }, text)));
  const table = html("table", {}, html("thead", {}, head), html("tbody", {}, ...body));
  return rows.length ? [html("section", {}, html("h2", {}, title), table)] : [];
}

// The loop.

function take(text) {
  const [time, series] = [performance.now(), parse(text)];
  if (earlier) addRates(series, earlier.values, (time - earlier.time) / 1000);
  earlier = { time, values: new Map(series.map(({ key, value }) => [key, value])) };
  views = viewsOf(series);
  samples.push({
    time: Date.now(),
    measures: new Map(views.map((view) => [view.name, measure(series.filter(view.of))])),
  });
}

const title = document.title;
let goneSince;

function tell(state, text) {
  document.body.className = state;
  document.title = state === "gone" ? `Gone: ${title}` : title;
  if (byId("state").textContent !== text) byId("state").textContent = text;
}

async function poll() {
  const started = performance.now();
  const get = (path) => fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  let text, ready;
  try {
    const [metrics, readyz] = await Promise.all([get("metrics"), get("readyz")]);
    if (metrics.ok) [text, ready] = [await metrics.text(), readyz.ok];
  } catch {
    // No answer, as with a status that is an error.
  }
  if (text === undefined) {
    earlier = undefined; // what happens meanwhile is no rate
    goneSince ??= Date.now();
    samples.push({ time: Date.now() });
    tell("gone", `Cannot reach the server since ${clock(goneSince)}, trying again`);
  } else {
    goneSince = undefined;
    take(text);
    tell(ready ? "live" : "late", ready ? "Live" : "A server is starting or stopping");
    byId("plain").hidden = true;
    byId("live").hidden = false;
  }
  while (samples[0].time < Date.now() - KEPT) samples.shift();
  const took = performance.now() - started;
  setTimeout(poll, Math.max(PERIOD - took, 4 * took)); // a large registry is read less often
  show();
}

window.addEventListener("resize", show);
poll();
