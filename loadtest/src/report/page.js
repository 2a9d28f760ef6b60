"use strict";
const errors = [];
window.addEventListener("error", (event) => {
  errors.push(event.message);
  document.body.dataset.errors = errors.join("; ");
});

const report = JSON.parse(document.getElementById("data").textContent);
const { summary, setup } = report;

const byId = (id) => document.getElementById(id);
const count = (value) => Math.round(value).toLocaleString("en-US");
const short = (value) => {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, unit] of units) if (Math.abs(value) >= size) return trim(value / size) + unit;
  return trim(value);
};
const trim = (value) => String(Number(value.toPrecision(3)));
const time = (us) => (us < 1e3 ? trim(us) + " µs" : us < 1e6 ? trim(us / 1e3) + " ms" : trim(us / 1e6) + " s");
const percentile = (inverse) => trim2(100 - 100 / inverse) + " %";
const trim2 = (value) => String(Number(value.toFixed(4)));

function element(name, attributes, ...children) {
  const svgNames = ["svg", "g", "path", "line", "text", "rect", "title"];
  const node = svgNames.includes(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function head() {
  const words = { proven: "Delivery proven: 0 lost", not_verified: "Delivery not verified", failed: "Failed" };
  const invalid = summary.measurement !== "not_valid" ? "" : setup.claim === "latency" ? " · measurement not valid" : " · latencies not valid (not claimed)";
  byId("verdict").textContent = words[summary.delivery] + invalid;
  byId("verdict").className = summary.delivery;
  const started = new Date(report.started_unix_ms).toISOString().replace("T", " ").slice(0, 19);
  const machine = `${report.machine.processors} × ${report.machine.processor}, Linux ${report.machine.kernel}`;
  byId("subtitle").textContent = `${count(setup.connections)} clients against ${setup.target} · ${started} UTC · ${machine}`;
  byId("reasons").append(...summary.reasons.map((reason) => element("li", {}, reason)));
  byId("warnings").append(...summary.warnings.map((warning) => element("li", {}, `warning: ${warning}`)));
  byId("table").textContent = report.table.replace(/^\n+|\s+$/g, "");
  byId("command").textContent = "Command: " + setup.command.join(" ");
  document.title = `swarm: ${words[summary.delivery]}`;
}

function tiles() {
  const all = [
    [count(summary.frames_per_s), "frames per second"],
    [summary.latency.count ? time(summary.latency.p50_us) : "–", "latency p50"],
    [summary.latency.count ? time(summary.latency.p99_us) : "–", "latency p99"],
    [summary.last_copy.count ? time(summary.last_copy.p99_us) : "–", "tick to last subscriber p99"],
    [count(summary.ramp_per_s), "connections per second"],
    [summary.fairness.toFixed(4), "fewest ÷ most frames"],
    [count(summary.faults), "faults"],
    [time(summary.loop_delay.p99_us), "generator's own delay p99"],
  ];
  byId("tiles").append(...all.map(([value, label]) =>
    element("div", { class: "tile" }, element("b", {}, value), element("span", {}, label))));
}

const WIDTH = 560, HEIGHT = 250, LEFT = 62, RIGHT = 24, TOP = 12, BOTTOM = 34;

function niceTicks(low, high, wanted) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) ticks.push(value);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of high / low > 1e3 ? [1] : [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
    }
  }
  return ticks;
}

function scale(low, high, from, to, isLog) {
  const map = isLog ? Math.log10 : (value) => value;
  const [a, b] = [map(low), map(high)];
  return (value) => from + ((map(value) - a) / (b - a || 1)) * (to - from);
}

/* One plot: `series` are { name, points: [[x, y], …] }; axes are { format, isLog, label, ticks }. */
function plot(title, note, series, xAxis, yAxis, span) {
  const figure = element("figure", {}, element("figcaption", {}, title, element("small", {}, note)));
  byId("plots").append(figure);
  series = series.map((one) => ({ ...one, points: one.points.filter(([, y]) => !yAxis.isLog || y > 0) }));
  const all = series.flatMap((one) => one.points);
  if (all.length === 0) {
    figure.append(element("div", { class: "empty" }, "nothing to draw: no data of this kind in the run"));
    return;
  }
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  let [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  let [yLow, yHigh] = [yAxis.isLog ? Math.min(...ys) : 0, Math.max(...ys)];
  if (xHigh === xLow) xHigh = xAxis.isLog ? xLow * 10 : xLow + 1;
  if (yAxis.isLog) [yLow, yHigh] = [yLow / 1.2, yHigh * 1.2];
  else yHigh = yHigh * 1.06 || 1;
  const x = scale(xLow, xHigh, LEFT, WIDTH - RIGHT, xAxis.isLog);
  const y = scale(yLow, yHigh, HEIGHT - BOTTOM, TOP, yAxis.isLog);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  if (span) {
    const [from, until] = span.map((value) => Math.min(Math.max(value, xLow), xHigh));
    svg.append(element("rect", { class: "window", x: x(from), y: TOP, width: Math.max(x(until) - x(from), 0), height: HEIGHT - BOTTOM - TOP },
      element("title", {}, "measured time")));
  }
  for (const tick of yAxis.isLog ? logTicks(yLow, yHigh) : niceTicks(yLow, yHigh, 5)) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(element("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, yAxis.format(tick)));
  }
  const xTicks = (xAxis.ticks || niceTicks(xLow, xHigh, 7)).filter((tick) => tick >= xLow && tick <= xHigh * 1.0001);
  for (const tick of xTicks) {
    svg.append(element("text", { x: x(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, xAxis.format(tick)));
  }
  svg.append(element("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, xAxis.label));
  series.forEach(({ points }, number) => {
    const path = points.map(([px, py], at) => `${at ? "L" : "M"}${x(px).toFixed(1)},${y(py).toFixed(1)}`).join("");
    svg.append(element("path", { class: `series c${number}`, d: path }));
  });
  const legend = element("div", { class: "legend" });
  const name = (at) => legend.replaceChildren(...series.map((one, number) => {
    const point = at === undefined ? undefined : nearest(one.points, at);
    const value = point ? `: ${yAxis.format(point[1])}` : "";
    return element("span", { class: `k${number}` }, element("i"), one.name + value);
  }), ...(at === undefined ? [] : [element("span", {}, `at ${xAxis.format(at)} ${xAxis.unit || ""}`)]));
  name();
  addCursor(svg, x, [xLow, xHigh], xAxis.isLog, series, name);
  figure.append(svg, legend);
  document.body.dataset.plots = Number(document.body.dataset.plots || 0) + 1;
}

function nearest(points, at) {
  return points.reduce((best, point) => (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best), undefined);
}

/* A line under the pointer; the legend then shows the values there. */
function addCursor(svg, x, [low, high], isLog, series, name) {
  const line = element("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  svg.append(line);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - RIGHT - LEFT);
    const inside = Math.min(Math.max(share, 0), 1);
    const at = isLog ? low * (high / low) ** inside : low + (high - low) * inside;
    const point = nearest(series[0].points, at);
    if (!point) return;
    line.setAttribute("x1", x(point[0]));
    line.setAttribute("x2", x(point[0]));
    line.setAttribute("visibility", "visible");
    name(point[0]);
  });
  svg.addEventListener("pointerleave", () => {
    line.setAttribute("visibility", "hidden");
    name();
  });
}

function plots() {
  const seconds = report.seconds.map((row) => ({ ...row, at: row.second - report.first_second }));
  const over = (key) => seconds.map((row) => [row.at, row[key]]);
  const timeAxis = { format: trim, label: "seconds since the start of the run", unit: "s" };
  const latencyAxis = { format: time, isLog: true };
  const span = report.window_seconds;
  plot("Latency by percentile", "from scheduled tick to receipt, measured time", [{ name: "latency", points: report.percentiles }],
    { format: percentile, isLog: true, label: "share of frames that were at most so late", ticks: [1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7] }, latencyAxis);
  plot("Latency over time", "each second by itself", [
    { name: "p50", points: over("p50_us") }, { name: "p99", points: over("p99_us") }, { name: "max", points: over("max_us") },
  ], timeAxis, latencyAxis, span);
  plot("Each tick", "from its scheduled time to its first and last subscriber, measured time", [
    { name: "last", points: report.ticks.map((row) => [row[0], row[2]]) }, { name: "first", points: report.ticks.map((row) => [row[0], row[1]]) },
  ], { format: trim, label: "seconds of measured time", unit: "s" }, latencyAxis);
  plot("Frames per second", "data frames received by all clients", [{ name: "frames", points: over("frames") }], timeAxis, { format: short }, span);
  plot("Connection ramp", "clients that are up, and connections failed or dropped so far", [
    { name: "up", points: over("up") }, { name: "failed or dropped", points: over("failures") },
  ], timeAxis, { format: short }, span);
  const rankAxis = { format: (share) => `${Math.round(share * 100)} %`, label: `clients in order (${count(report.clients)})`, ticks: [0, 0.25, 0.5, 0.75, 1] };
  plot("Fairness: frames per client", "flat is fair; measured time", [{ name: "frames", points: report.frames_by_rank }], rankAxis, { format: short });
  plot("Fairness: mean latency per client", "flat is fair; measured time", [{ name: "mean latency", points: report.latency_by_rank }], rankAxis, { format: time });
  plot("The generator itself", "p99 of the receive loop's delay", [{ name: "loop delay p99", points: over("loop_p99_us") }], timeAxis, latencyAxis, span);
}

function faults() {
  if (report.faults.length === 0) return;
  byId("faults").hidden = false;
  const row = (fault) => ["kind", "client", "group", "tick", "sequence_id", "record_timestamp", "detail"]
    .map((key) => element("td", {}, fault[key] === null ? "–" : String(fault[key])));
  byId("faults").querySelector("tbody").append(...report.faults.map((fault) => element("tr", {}, ...row(fault))));
}

head();
tiles();
plots();
faults();
document.body.dataset.done = "yes";
