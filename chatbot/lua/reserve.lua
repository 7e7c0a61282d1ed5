-- ARGV 2 id, 3 tokens, 4 lease (µs), 5 seconds to keep the reservation, 6 today, 7 its end (µs), 8 tomorrow, 9 its end,
-- 10..21: for tenant, user, model in turn: tokens a minute, requests a minute, slots, tokens a day.

local id, tokens, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local day, day_end = ARGV[6], tonumber(ARGV[7])
if now >= day_end then -- the process that asked is a moment behind the server
  day, day_end = ARGV[8], tonumber(ARGV[9])
end

local scopes = {}
for n = 1, SCOPES do
  scopes[n] = read_scope(n, day)
end

-- A command that redis-py sent again, because the connection broke before the reply, must not be charged twice.
if redis.call("EXISTS", RESERVATION) == 1 then
  return report(scopes, day)
end

local worst = { wait = 0, scope = 0, dimension = 0 }
local function weigh(scope, dimension, wait)
  if wait > worst.wait then
    worst = { wait = wait, scope = scope, dimension = dimension }
  end
end
for n = 1, SCOPES do
  local scope, limit = scopes[n], 9 + (n - 1) * 4
  weigh(n, TOKENS, window_wait(scope.tokens, tokens, tonumber(ARGV[limit + 1])))
  weigh(n, REQUESTS, window_wait(scope.requests, 1, tonumber(ARGV[limit + 2])))
  weigh(n, SLOTS, slot_wait(scope, tonumber(ARGV[limit + 3])))
  if scope.spent + tokens > tonumber(ARGV[limit + 4]) then
    weigh(n, DAY, day_end - now)
  end
end
if worst.wait > 0 then
  return { 0, now, worst.scope, worst.dimension, worst.wait }
end

for n = 1, SCOPES do
  local scope = scopes[n]
  charge(scope.tokens, tokens)
  charge(scope.requests, 1)
  spend_day(scope, day, tokens)
  redis.call("ZREMRANGEBYSCORE", scope.leases_key, "-inf", now)
  redis.call("ZADD", scope.leases_key, now + lease, id)
  -- Another answer's lease may be longer: never shorten what keeps it counted.
  local keep = math.ceil(lease / MICRO) + SPAN
  if redis.call("TTL", scope.leases_key) < keep then
    redis.call("EXPIRE", scope.leases_key, keep)
  end
  scope.leases = scope.leases + 1
end
local record = { day = day, tokens = tokens, parts = { { second, tokens } } }
redis.call("SET", RESERVATION, cjson.encode(record), "EX", ARGV[5])
return report(scopes, day)
