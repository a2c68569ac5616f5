// Live charts of this server's metrics: one poll a second while the page is visible, five minutes are kept.

import { get, make } from "./dom.js";
import { point, sample } from "./metrics.js";
import { call } from "./server.js";

const WINDOW = 300; // seconds
const LEAST = 60; // seconds shown at first
const PERIOD = 1000; // ms between polls
const SOON = 100; // ms between the first two, which the first point needs
const HEIGHT = 96; // px
const HALF = 20; // px of a label of the time; those that the edge would cut are omitted
const CHARTS = [
  { title: "Requests", unit: "per second", lines: { ok: "answered" } },
  { title: "Errors", unit: "per second", lines: { client: "4xx", server: "5xx" }, colors: ["--warn", "--bad"] },
  { title: "Latency", unit: "ms", lines: { p50: "p50", p95: "p95", p99: "p99" } },
  { title: "Queue", unit: "items", lines: { queue: "waiting" } },
  { title: "Batch size", unit: "items", lines: { batch: "mean" } },
  { title: "Padding", unit: "%", lines: { padding: "of tokens" }, most: 100 },
  { title: "Cache", unit: "%", lines: { hits: "hits" }, most: 100 },
  { title: "Shed", unit: "per second", lines: { shed: "rejected" }, colors: ["--bad"] },
];
const COLORS = ["--one", "--two", "--three"];

const points = []; // {at, ...values by line}
const latest = new Map(); // by start time of the process: its last sample
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = (value) => (value === null || value === undefined ? "–" : value >= 100 || value === 0 ? value.toFixed(0) : value.toPrecision(2).replace(/\.0$/, ""));

/** Draw the charts and poll until the page is closed. onRefused: called with the Refused of a poll. */
export function start(onRefused) {
  const charts = CHARTS.map(create);
  let running = false, timer;
  async function poll() {
    if (document.hidden || running) return;
    clearTimeout(timer);
    running = true;
    let wait = PERIOD;
    try {
      record(sample((await call("metrics")).text, Date.now() / 1000));
      if (points.length === 1) wait = SOON;
    } catch (error) {
      points.push({ at: Date.now() / 1000 });
      trim();
      get("live").textContent = error.message;
      if (onRefused(error)) wait = 0;
    }
    running = false;
    for (const draw of charts) draw();
    if (points.length === 2) performance.mark("first point");
    if (wait) timer = setTimeout(poll, wait);
  }
  document.addEventListener("visibilitychange", poll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const draw of charts) draw(); });
  poll();
  return poll;
}

function record(now) {
  const before = latest.get(now.start);
  points.push({ at: now.at, ...point(before, now) });
  latest.set(now.start, now);
  trim();
  for (const [start, { at }] of latest) if (at < now.at - WINDOW) latest.delete(start);
  get("live").textContent = latest.size > 1
    ? `${latest.size} processes answered in the last minutes (replicas, or a restart): each point is of one of them`
    : "the last minutes of this server process, all clients";
}

function trim() {
  while (points[0].at < points.at(-1).at - WINDOW) points.shift();
}

function create({ title, unit, lines, colors = COLORS, most }) {
  const names = Object.keys(lines);
  const values = names.map(() => make("b"));
  const legend = names.map((name, at) => make("span", {}, make("i", { className: `dot ${colors[at].slice(2)}` }), `${lines[name]} `, values[at]));
  const canvas = make("div", { className: "canvas", attributes: { role: "img", "aria-label": `Chart: ${title}` } });
  get("charts").append(make("figure", {}, make("figcaption", {}, make("span", { className: "title" }, make("strong", {}, title), ` ${unit}`), ...legend), canvas));
  const stroke = (name) => () => color(name);
  const axis = { stroke: stroke("--faint"), grid: { stroke: stroke("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const isolated = (u, series) => points.map((_, at) => at).filter((at) => {
    const data = u.data[series];
    return data[at] != null && data[at - 1] == null && data[at + 1] == null;
  });
  const legendAt = (at) => names.forEach((name, line) => { values[line].textContent = text(name, at); });
  const text = (name, at) => shown(at === null ? points.findLast((each) => each[name] != null)?.[name] : points[at]?.[name]);
  const plot = new uPlot({
    width: 200, height: HEIGHT, legend: { show: false }, padding: [6, 6, 0, 0],
    cursor: { sync: { key: "live" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
    hooks: { setCursor: [(u) => legendAt(u.cursor.idx ?? null)] },
    scales: {
      x: { range: () => { const end = points.at(-1)?.at ?? 1; return [Math.min(Math.max(points[0]?.at ?? 0, end - WINDOW), end - LEAST), end]; } },
      y: { range: (_, __, max) => [0, most ?? (max > 0 ? max * 1.15 : 1)] },
    },
    series: [{}, ...names.map((_, at) => ({ stroke: stroke(colors[at]), width: 1.5, points: { show: true, size: 4, fill: stroke(colors[at]), filter: isolated } }))],
    axes: [
      { ...axis, size: 20, space: 70, values: (u, ticks) => ticks.map((tick) => (u.valToPos(tick, "x") > u.over.clientWidth - HALF ? "" : new Date(tick * 1000).toLocaleTimeString([], { hour12: false }))) },
      { ...axis, size: 40, space: 26, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en", { notation: "compact" })) },
    ],
  }, [[], ...names.map(() => [])], canvas);
  new ResizeObserver(([{ contentRect: { width } }]) => plot.setSize({ width: Math.floor(width), height: HEIGHT })).observe(canvas);
  return () => {
    plot.setData([points.map(({ at }) => at), ...names.map((name) => points.map((each) => each[name] ?? null))]);
    if (plot.cursor.idx == null || plot.cursor.left < 0) legendAt(null);
    canvas.setAttribute("aria-label", `Chart: ${title}, ${unit}; now ${names.map((name) => `${lines[name]} ${text(name, null)}`).join(", ")}`);
  };
}
