-- wrk script: posts the lines of the file BODIES in turn, from line START + 1; without it, texts numbered from START + 1.
local bodies, n = {}, tonumber(os.getenv("START") or "0")
local file = os.getenv("BODIES")
if file and file ~= "" then
  for line in io.lines(file) do bodies[#bodies + 1] = line end
end
local numbered = '{"dataframe_split": {"columns": ["text"], "data": [["%d: a short text, another in every request"]]}}'
function init() wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json" end
function request()
  n = n + 1
  local body = #bodies > 0 and bodies[(n - 1) % #bodies + 1] or string.format(numbered, n)
  return wrk.format(nil, nil, nil, body)
end
function done(summary, latency)
  local bad = summary.errors
  -- Only successful responses count in requests per second.
  io.write(string.format('{"rps": %.2f, "p50_ms": %.1f, "p99_ms": %.1f, "requests": %d, "failed": %d}\n',
    (summary.requests - bad.status) / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, summary.requests, bad.status + bad.timeout + bad.connect + bad.read + bad.write))
end
