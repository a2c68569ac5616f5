// Reads Prometheus' text format, and computes the points of the charts from two samples of one process.

const LINE = /^(likewise_\w+|process_start_time_seconds)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The counters and gauges of a metrics page that the charts need. at: seconds. */
export function sample(page, at) {
  const found = { at, start: 0, ok: 0, client: 0, server: 0, shed: 0, latency: new Map() };
  for (const line of page.split("\n")) {
    const match = LINE.exec(line);
    if (!match) continue;
    const [, name, text = "", number] = match;
    const labels = Object.fromEntries([...text.matchAll(LABEL)].map(([, key, value]) => [key, value]));
    add(found, name.replace(/^likewise_/, ""), labels, Number(number));
  }
  return found;
}

function add(found, name, { route = "", status = "", le }, value) {
  const inference = /^\/invocations$|\/infer$/.test(route);
  if (name === "process_start_time_seconds") found.start = value;
  else if (name === "requests_total" && inference) found[status < "200" || status >= "500" ? "server" : status < "400" ? "ok" : "client"] += value; // 0: none was sent
  else if (name === "request_seconds_bucket" && inference) {
    const bound = le === "+Inf" ? Infinity : Number(le);
    found.latency.set(bound, (found.latency.get(bound) ?? 0) + value); // of all routes
  }
  else if (name === "shed_total") found.shed += value;
  else if (!route) found[name] = value;
}

/** One value per line of the charts; null if there was nothing to measure in between, or if `before` is missing. */
export function point(before, after) {
  const queue = after.queue_items ?? null;
  if (!before || after.ok < before.ok) return { queue }; // another process, where its start is not known
  const delta = (name) => (after[name] ?? 0) - (before[name] ?? 0);
  const rate = (name) => delta(name) / (after.at - before.at);
  const mean = (name) => (delta(`${name}_count`) ? delta(`${name}_sum`) / delta(`${name}_count`) : null);
  const hits = delta("cache_hits_total") + delta("shared_items_total");
  const looked = hits + delta("cache_misses_total");
  const efficiency = mean("padding_efficiency");
  return {
    queue,
    ok: rate("ok"), client: rate("client"), server: rate("server"), shed: rate("shed"),
    p50: quantile(0.5, before, after), p95: quantile(0.95, before, after), p99: quantile(0.99, before, after),
    batch: mean("batch_items"),
    padding: efficiency === null ? null : 100 * (1 - efficiency),
    hits: looked ? (100 * hits) / looked : null,
  };
}

/** Milliseconds, interpolated within the bucket as Prometheus does. */
function quantile(q, before, after) {
  const buckets = [...after.latency].map(([le, count]) => [le, count - (before.latency.get(le) ?? 0)]).sort(([one], [other]) => one - other);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (!total) return null;
  let low = 0, below = 0;
  for (const [le, count] of buckets) {
    if (count >= q * total) return 1000 * (le === Infinity ? low : low + ((le - low) * (q * total - below)) / (count - below));
    [low, below] = [le, count];
  }
  return null;
}
