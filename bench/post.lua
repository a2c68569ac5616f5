-- wrk: posts the lines of the file named by BODIES in turn; every request is another text.
local bodies, n = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
function init() wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json" end
function request() n = n % #bodies + 1; return wrk.format(nil, nil, nil, bodies[n]) end
function done(summary, latency)
  local bad = summary.errors
  io.write(string.format('{"rps": %.2f, "p50_ms": %.1f, "p99_ms": %.1f, "requests": %d, "failed": %d}\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.requests, bad.status + bad.timeout + bad.connect + bad.read + bad.write))
end
