-- Orders of many visitors, as they come through a proxy. COOKIES names a file with a header a line,
-- PORTS the servers, one for each thread: of connections to one port, one worker may accept all.
local visitors = {}
local last = 0
local threads = 0

setup = function(thread)
  threads = threads + 1
  local ports = {}
  for port in os.getenv("PORTS"):gmatch("%d+") do
    ports[#ports + 1] = port
  end
  thread.addr = wrk.lookup("127.0.0.1", ports[threads])[1]
end

init = function()
  local headers = {
    ["Host"] = "shop.example",
    ["Content-Type"] = "application/x-www-form-urlencoded",
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ["X-Forwarded-For"] = "203.0.113.9",
    ["X-Forwarded-Proto"] = "https",
  }
  for cookies in io.lines(os.getenv("COOKIES")) do
    headers["Cookie"] = cookies
    visitors[#visitors + 1] = wrk.format("POST", nil, headers, "product=mug&quantity=1")
  end
end

request = function()
  last = last % #visitors + 1
  return visitors[last]
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d, "p99.9": %d}\n', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
