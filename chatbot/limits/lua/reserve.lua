-- ARGV 2 id, 3 tokens, 4 lease (µs), 5 seconds to keep the reservation, 6 today, 7 its end (µs), 8 tomorrow, 9 its end,
-- 10..21: for tenant, user, model in turn: tokens a minute, requests a minute, slots, tokens a day.
-- A refusal writes nothing; it replies 0, time and state as a success does, then scope, dimension and wait (µs).

local id, tokens, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local day, day_end = day_of(ARGV[6], ARGV[7], ARGV[8], ARGV[9])

local scopes = {}
for n = 1, SCOPES do
  scopes[n] = read_scope(n, day)
end

-- A command that redis-py sent again, because the connection broke before the reply, must not be charged twice.
if redis.call("EXISTS", RESERVATION) == 1 then
  return report(scopes)
end

local worst = { wait = 0, scope = 0, dimension = 0 }
local function weigh(scope, dimension, wait)
  if wait > worst.wait then
    worst = { wait = wait, scope = scope, dimension = dimension }
  end
end
for n = 1, SCOPES do
  local scope, limit = scopes[n], 9 + (n - 1) * 4
  local window = scope.window
  weigh(n, TOKENS, window_wait(window, "t", window.tokens, tokens, tonumber(ARGV[limit + 1])))
  weigh(n, REQUESTS, window_wait(window, "r", window.requests, 1, tonumber(ARGV[limit + 2])))
  weigh(n, SLOTS, slot_wait(scope, tonumber(ARGV[limit + 3])))
  if scope.spent + tokens > tonumber(ARGV[limit + 4]) then
    weigh(n, DAY, day_end - now)
  end
end
if worst.wait > 0 then
  local numbers = state_of(scopes)
  local at = #numbers
  numbers[at + 1], numbers[at + 2], numbers[at + 3] = worst.scope, worst.dimension, worst.wait
  return reply(0, numbers)
end

for n = 1, SCOPES do
  local scope = scopes[n]
  charge(scope.window, tokens, 1)
  spend_day(scope, day, tokens)
  redis.call("ZREMRANGEBYSCORE", scope.leases_key, "-inf", now)
  redis.call("ZADD", scope.leases_key, now + lease, id)
  keep_leases(scope.leases_key, lease)
  scope.leases = scope.leases + 1
end
local record = { day = day, tokens = tokens, parts = { part_of(scopes, tokens) } }
redis.call("SET", RESERVATION, cjson.encode(record), "EX", ARGV[5])
return report(scopes)
