// Charts of what `metrics` says once a second. Keeps five minutes, here and nowhere else. What a
// peer may have had a hand in comes into the page as text, never as HTML.
'use strict';

const PERIOD = 1_000; // all times in milliseconds
const PATIENCE = 10_000;
const KEPT = 300_000;
const MAX_LINES = 5;
const MAX_ROWS = 20;

// Units: how a value is written.

const scaled = (...steps) => (value) => {
  if (value == null) return '–';
  const [size, unit] = steps.findLast(([size]) => value >= size) ?? steps[0];
  return `${Number((value / size).toPrecision(3))}${unit}`;
};
const count = scaled([1, ''], [1e3, ' k'], [1e6, ' M'], [1e9, ' G']);
const bytes = scaled([1, ' B'], [1e3, ' kB'], [1e6, ' MB'], [1e9, ' GB']);
const duration = scaled([1e-6, ' µs'], [1e-3, ' ms'], [1, ' s']);
const clock = (time) => new Date(time).toTimeString().slice(0, 8);

// What is read.

function parse(text) {
  const series = [];
  for (const line of text.split('\n')) {
    const [, key, side, name, values, value] =
      /^(arrpc_(server|client)_(\w+)(?:\{(.*)\})?) (\S+)$/s.exec(line) ?? [];
    if (!key) continue;
    const labels = {};
    for (const [, label, quoted] of (values ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/gs)) {
      labels[label] = quoted.replace(/\\(.)/gs, (_, escaped) => (escaped === 'n' ? '\n' : escaped));
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
  const has = (side) => series.some((one) => one.side === side);
  const servers = new Set(series.flatMap(({ labels }) => labels.handler_func ?? []));
  const views = [...servers].sort().map((server) => ({
    id: `server ${server}`, name: server, side: 'server', of: ({ labels }) => labels.handler_func === server,
  }));
  if (servers.size > 1) views.unshift({ id: 'servers', name: 'All servers', side: 'server', of: ({ side }) => side === 'server' });
  if (has('client')) views.push({ id: 'clients', name: 'Clients', side: 'client', of: ({ side }) => side === 'client' });
  return views;
}

/** What the charts and tables show of some series. */
function measure(series) {
  const by = (name, label, field) => {
    const sums = new Map();
    for (const one of series) {
      if (one.name !== name || one[field] === undefined) continue;
      const value = one.labels[label] ?? '';
      sums.set(value, (sums.get(value) ?? 0) + one[field]);
    }
    return sums;
  };
  const sum = (name, field) => [...by(name, '', field).values()][0];
  const counted = (name, label) => ({ rates: by(name, label, 'rate'), totals: by(name, label, 'value') });
  const known = series.some((one) => one.rate !== undefined); // of two readings, not of one
  const buckets = [...by('req_duration_seconds_bucket', 'le', 'rate')];
  return {
    requests: sum('req_seconds_count', 'rate'),
    errors: sum('errors_total', 'rate') ?? (known ? 0 : undefined),
    bytes: sum('req_bytes_sum', 'rate'),
    connections: sum('connections', 'value'),
    inFlight: sum('requests_in_flight', 'value'),
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    p999: quantile(buckets, 0.999),
    calls: counted('method_calls_total', 'method'),
    failures: counted('method_errors_total', 'method'),
    limits: counted('refusals_total', 'limit'),
    reasons: counted('errors_total', 'reason'),
    peers: counted('req_seconds_count', 'remote_address'),
  };
}

/** As Prometheus does it: evenly spread within a bucket; beyond the last bound, that bound. */
function quantile(buckets, part) {
  const bounds = buckets.map(([le, rate]) => [le === '+Inf' ? Infinity : Number(le), rate]).sort(([a], [b]) => a - b);
  const rank = part * (bounds.at(-1)?.[1] ?? 0);
  if (rank === 0) return undefined;
  let [below, lower] = [0, 0];
  for (const [bound, rate] of bounds) {
    if (rate >= rank) return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (rate - below);
    [below, lower] = [rate, bound];
  }
}

// What is shown.

const CHARTS = [
  { title: 'Requests', per: 'per second', unit: count, lines: (m) => ({ requests: m.requests }) },
  { title: 'Latency', unit: duration, log: true, lines: (m) => ({ p50: m.p50, p99: m.p99, 'p99.9': m.p999 }), empty: 'no requests' },
  { title: 'Errors', per: 'per second', unit: count, lines: (m) => ({ errors: m.errors }) },
  { title: 'Open now', unit: count, whole: true, lines: (m) => ({ connections: m.connections, 'requests in flight': m.inFlight }) },
  { title: 'Bytes of requests', per: 'per second', unit: bytes, lines: (m) => ({ bytes: m.bytes }) },
  { title: 'Limits hit', per: 'per second', unit: count, names: (m) => m.limits, side: 'server', empty: 'none hit so far' },
  { title: 'Calls by method', per: 'per second', unit: count, names: (m) => m.calls },
  { title: 'Errors by method', per: 'per second', unit: count, names: (m) => m.failures },
];
const TABLES = [
  { title: 'Methods', columns: { 'calls/s': 'calls', 'errors/s': 'failures', calls: 'calls', errors: 'failures' } },
  { title: 'Limits hit', columns: { 'per s': 'limits', total: 'limits' } },
  { title: 'Errors by reason', columns: { 'per s': 'reasons', total: 'reasons' } },
  { title: 'Requests by address', columns: { 'per s': 'peers', total: 'peers' } },
];

const maker = (space) => (name, attributes = {}, ...children) => {
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const html = maker('http://www.w3.org/1999/xhtml');
const svg = maker('http://www.w3.org/2000/svg');
const byId = (id) => document.getElementById(id);

let views = [];
let chosen; // the id of a view
let cursor; // a time that the pointer is at
let earlier; // the last reading
const samples = []; // { time, measures: by view, or nothing where there was no answer }

for (const chart of CHARTS) {
  chart.legend = html('ul', { class: 'legend' });
  chart.svg = svg('svg', { role: 'img', 'aria-label': chart.title });
  chart.figure = html('figure', {}, html('h2', {}, `${chart.title} `, html('small', {}, chart.per ?? '')), chart.legend, chart.svg);
  chart.svg.addEventListener('pointermove', ({ offsetX }) => {
    cursor = chart.timeAt?.(offsetX);
    show();
  });
  chart.svg.addEventListener('pointerleave', () => {
    cursor = undefined;
    show();
  });
}
const tables = html('div', { class: 'cards' });
const nothing = html('p', { class: 'none' }, 'No server or client of this process has metrics yet.');
byId('live').append(nothing, html('div', { class: 'cards' }, ...CHARTS.map((chart) => chart.figure)), tables);

function show() {
  const view = views.find(({ id }) => id === chosen) ?? views[0];
  nothing.hidden = view !== undefined;
  byId('views').replaceChildren(...(views.length > 1 ? views.map((one) => {
    const button = html('button', { type: 'button', 'aria-pressed': one === view }, one.name);
    button.addEventListener('click', () => {
      chosen = one.id;
      show();
    });
    return button;
  }) : []));
  const of = (sample) => sample?.measures?.get(view?.id);
  const latest = of(samples.findLast((sample) => sample.measures));
  for (const chart of CHARTS) {
    const names = latest && chart.names?.(latest).totals;
    chart.figure.hidden = !latest || (names && !names.size && chart.side !== view.side);
    if (!chart.figure.hidden) drawChart(chart, of, latest);
  }
  tables.replaceChildren(...(latest ? TABLES.flatMap((table) => drawTable(table, latest)) : []));
}

/** The lines of a chart over all samples: those of fixed names, or the largest of many. */
function linesOf(chart, of, latest) {
  if (!chart.names) {
    const lines = samples.map((sample) => (of(sample) ? chart.lines(of(sample)) : {}));
    const names = Object.keys(chart.lines(latest)).filter((name) => lines.some((line) => line[name] !== undefined));
    return names.map((name) => ({ name, values: lines.map((line) => line[name]) }));
  }
  const largest = [...chart.names(latest).totals].sort(([, a], [, b]) => b - a).map(([name]) => name);
  const rates = samples.map((sample) => of(sample) && chart.names(of(sample)).rates);
  const rateOf = (rate, name) => (rate?.size ? rate.get(name) ?? 0 : undefined);
  const shown = largest.slice(0, MAX_LINES).sort(); // in an order that does not change all the time
  const lines = shown.map((name) => ({ name, values: rates.map((rate) => rateOf(rate, name)) }));
  const rest = largest.slice(MAX_LINES);
  const sumOf = (rate) => rate && rest.reduce((sum, name) => sum + (rateOf(rate, name) ?? 0), 0);
  if (rest.length) lines.push({ name: `${rest.length} others`, values: rates.map(sumOf) });
  return lines;
}

function drawChart(chart, of, latest) {
  const lines = linesOf(chart, of, latest);
  const [width, height] = [chart.svg.clientWidth, chart.svg.clientHeight];
  const [left, right, top, bottom] = [52, width - 8, 8, height - 20];

  const now = samples.at(-1).time;
  const span = Math.min(KEPT, Math.max(60_000, now - samples[0].time));
  const x = (time) => right - ((now - time) / span) * (right - left);
  chart.timeAt = (at) => now - ((right - at) / (right - left)) * span;

  const known = lines.flatMap(({ values }) => values).filter((value) => value !== undefined);
  const marks = chart.log ? decades(known) : steps(Math.max(0, ...known), chart.whole);
  const level = chart.log ? (value) => Math.log10(Math.max(value, marks[0])) : (value) => value;
  const [low, high] = [level(marks[0]), level(marks.at(-1))];
  const y = (value) => bottom - ((level(value) - low) / (high - low)) * (bottom - top);

  const parts = marks.flatMap((mark) => [
    svg('path', { class: 'grid', d: `M${left} ${y(mark)}H${right}` }),
    svg('text', { x: left - 8, y: y(mark) + 4, 'text-anchor': 'end' }, chart.unit(mark)),
  ]);
  const every = span > 120_000 ? 60_000 : span > 60_000 ? 30_000 : 15_000;
  for (let ago = 0; ago <= span; ago += every) {
    const text = ago === 0 ? 'now' : every < 60_000 ? `−${ago / 1000} s` : `−${ago / 60_000} min`;
    parts.push(svg('text', { x: x(now - ago), y: height - 4, 'text-anchor': ago ? 'middle' : 'end' }, text));
  }
  lines.forEach(({ values }, index) => {
    for (const points of runs(values, x, y)) {
      if (lines.length === 1) {
        parts.push(svg('path', { class: 'area c0', d: `M${points.join('L')}V${bottom}H${points[0].split(' ')[0]}Z` }));
      }
      parts.push(svg('path', { class: `line c${index}`, d: `M${points[0]}h0L${points.join('L')}` }));
    }
  });
  if (!known.length) {
    const text = samples.length < 3 ? 'reading …' : chart.empty ?? 'nothing yet';
    parts.push(svg('text', { x: (left + right) / 2, y: (top + bottom) / 2 + 4, 'text-anchor': 'middle' }, text));
  }

  const distance = (sample) => Math.abs(sample.time - cursor);
  const at = cursor === undefined ? samples.length - 1
    : samples.reduce((best, sample, index) => (distance(sample) < distance(samples[best]) ? index : best), 0);
  if (cursor !== undefined) {
    const place = x(samples[at].time);
    const anchor = place > (left + right) / 2 ? 'end' : 'start';
    parts.push(svg('path', { class: 'cursor', d: `M${place} ${top}V${bottom}` }));
    parts.push(svg('text', { x: place + (anchor === 'end' ? -6 : 6), y: top + 10, 'text-anchor': anchor }, clock(samples[at].time)));
  }
  chart.svg.replaceChildren(...parts);
  chart.legend.replaceChildren(...lines.map(({ name, values }, index) =>
    html('li', {}, html('i', { class: `c${index}` }), html('bdi', {}, name), ' ', html('b', {}, chart.unit(values[at])))));
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
  const low = values.length ? Math.floor(Math.log10(Math.min(...values))) : -5;
  const high = values.length ? Math.ceil(Math.log10(Math.max(...values))) : -2;
  return Array.from({ length: Math.max(1, high - low) + 1 }, (_, index) => 10 ** (low + index));
}

function drawTable({ title, columns }, measures) {
  const heads = Object.keys(columns);
  const counted = Object.values(columns).map((name) => measures[name]);
  const rows = [...counted[0].totals].sort(([, a], [, b]) => b - a);
  if (!rows.length) return [];
  const isRate = (head) => head.endsWith('s') && /\/s|per s/.test(head);
  const cell = (name, index) => {
    if (isRate(heads[index])) return counted[index].rates.size ? count(counted[index].rates.get(name) ?? 0) : '–';
    return (counted[index].totals.get(name) ?? 0).toLocaleString('en');
  };
  const body = rows.slice(0, MAX_ROWS).map(([name]) =>
    html('tr', {}, html('td', {}, html('bdi', {}, name)), ...heads.map((_, index) => html('td', {}, cell(name, index)))));
  if (rows.length > MAX_ROWS) body.push(html('tr', {}, html('td', { colspan: heads.length + 1 }, `and ${rows.length - MAX_ROWS} more`)));
  const head = html('tr', {}, html('th'), ...heads.map((head) => html('th', { scope: 'col' }, head)));
  return [html('section', {}, html('h2', {}, title), html('table', {}, html('thead', {}, head), html('tbody', {}, ...body)))];
}

// The loop.

function take(text) {
  const [time, series] = [performance.now(), parse(text)];
  if (earlier) addRates(series, earlier.values, (time - earlier.time) / 1000);
  earlier = { time, values: new Map(series.map(({ key, value }) => [key, value])) };
  views = viewsOf(series);
  samples.push({ time: Date.now(), measures: new Map(views.map((view) => [view.id, measure(series.filter(view.of))])) });
}

const host = document.title;
let goneSince;

function tell(state, text) {
  document.body.className = state;
  document.title = state === 'gone' ? `Gone: ${host}` : host;
  if (byId('state').textContent !== text) byId('state').textContent = text;
}

async function poll() {
  const started = performance.now();
  try {
    const get = (path) => fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    const [metrics, ready] = await Promise.all([get('metrics'), get('readyz')]);
    if (!metrics.ok) throw new Error(metrics.statusText);
    take(await metrics.text());
    goneSince = undefined;
    if (ready.ok) tell('live', 'Live');
    else tell('late', 'A server is starting or stopping');
    byId('plain').hidden = true;
    byId('live').hidden = false;
  } catch {
    earlier = undefined; // what happens meanwhile is no rate
    goneSince ??= Date.now();
    samples.push({ time: Date.now() });
    tell('gone', `No answer since ${clock(goneSince)}, trying again`);
  }
  while (samples[0].time < Date.now() - KEPT) samples.shift();
  show();
  const took = performance.now() - started;
  setTimeout(poll, Math.max(PERIOD - took, 4 * took)); // a large registry is read less often
}

window.addEventListener('resize', show);
poll();
