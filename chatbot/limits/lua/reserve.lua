-- Reserves tokens, a request and a slot in all scopes, or writes nothing. Returns the state; a refusal has the scope
-- and the dimension that stay full for longest, and the wait in µs (0 for a slot: it is unknown when one is free).
-- Arguments: id, tokens, lease (µs), keep_seconds, days, limits (of each scope, by dimension).

local day = day_of(args.days)
give_back_lapsed()
local scopes = read_scopes(day.name)

-- A command must not be charged twice if redis-py sends it again because the connection broke before the reply. It must
-- not be charged at all if it arrives after its caller gave up and settled it.
if redis.call("EXISTS", RESERVATION, SETTLED) > 0 then
  return report(scopes)
end

local refusal
local function keep_longest(scope, dimension, wait)
  if not refusal or wait > refusal.wait then
    refusal = { scope = scope, dimension = dimension, wait = wait }
  end
end
for _, name in ipairs(SCOPES) do
  local scope, limit = scopes[name], args.limits[name]
  local window = scope.window
  local tokens_wait = window_wait(window, "t", window.tokens, args.tokens, limit.tokens_per_minute)
  local requests_wait = window_wait(window, "r", window.requests, 1, limit.requests_per_minute)
  if scope.leases >= limit.concurrent then
    keep_longest(name, "concurrent", 0)
  end
  if tokens_wait > 0 then
    keep_longest(name, "tokens_per_minute", tokens_wait)
  end
  if requests_wait > 0 then
    keep_longest(name, "requests_per_minute", requests_wait)
  end
  if scope.spent + args.tokens > limit.tokens_per_day then
    keep_longest(name, "tokens_per_day", day.ends - now)
  end
end
if refusal then
  return report(scopes, refusal)
end

for name, scope in pairs(scopes) do
  charge(scope.window, args.tokens, 1)
  spend_day(scope, day.name, args.tokens)
  if name ~= "tenant" then -- `give_back_lapsed` needs the tenant's
    redis.call("ZREMRANGEBYSCORE", scope.leases_key, "-inf", now)
  end
  redis.call("ZADD", scope.leases_key, now + args.lease, args.id)
  keep_leases(scope.leases_key, args.lease)
  scope.leases = scope.leases + 1
end
local record = record_of(day.name, args.tokens, { part_of(scopes, args.tokens) })
redis.call("SET", RESERVATION, cjson.encode(record), "EX", args.keep_seconds)
return report(scopes)
