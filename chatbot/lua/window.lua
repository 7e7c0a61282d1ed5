-- Shared by the ledger's scripts (prepended to each of them).
--
-- A window is a hash of one-second buckets, field = Unix second, value = tokens or requests. What was charged in
-- second s may have been charged at its very end, so it counts until s + 61: never more than the limit in any 60 s.
-- Times are whole microseconds (exact in a double until the year 2255): a wait that is told is a wait that is true.
--
-- KEYS 1..12: for tenant, user, model in turn: tokens window, requests window, spent a day, leases.
-- KEYS 13: the reservation.  14: the tenant's last answers.  15: their 95th percentile.
-- ARGV 1: the time, empty for the server's.

local SPAN, MICRO, SCOPES = 61, 1000000, 3
local TOKENS, REQUESTS, SLOTS, DAY = 1, 2, 3, 4 -- dimensions, as they are told to the caller
local RESERVATION, ANSWERS, PERCENTILE = KEYS[13], KEYS[14], KEYS[15]

local function current_time()
  if ARGV[1] ~= "" then
    return tonumber(ARGV[1])
  end
  local parts = redis.call("TIME")
  return tonumber(parts[1]) * MICRO + tonumber(parts[2])
end

local now = current_time()
local second = math.floor(now / MICRO)

local function read_window(key)
  local window = { key = key, used = 0, newest = 0, buckets = {}, stale = {} }
  local flat = redis.call("HGETALL", key)
  for i = 1, #flat, 2 do
    local at, amount = tonumber(flat[i]), tonumber(flat[i + 1])
    if at + SPAN <= second then
      window.stale[#window.stale + 1] = flat[i]
    elseif amount ~= 0 then
      window.buckets[at] = amount
      window.used = window.used + amount
      window.newest = math.max(window.newest, at)
    end
  end
  return window
end

-- Microseconds until `amount` fits: when enough of the oldest buckets have left. Nothing larger than the limit comes here.
local function window_wait(window, amount, limit)
  local excess = window.used + amount - limit
  if excess <= 0 then
    return 0
  end
  for at = second - SPAN + 1, window.newest do
    excess = excess - (window.buckets[at] or 0)
    if excess <= 0 then
      return (at + SPAN) * MICRO - now
    end
  end
  return SPAN * MICRO
end

local function charge(window, amount)
  redis.call("HINCRBY", window.key, second, amount)
  if #window.stale > 0 then
    redis.call("HDEL", window.key, unpack(window.stale))
  end
  redis.call("EXPIRE", window.key, 2 * SPAN)
  window.used = window.used + amount
  window.newest = second
end

-- Everything there is to know of one scope; `day` is the field of today.
local function read_scope(n, day)
  local first = (n - 1) * 4
  return {
    tokens = read_window(KEYS[first + 1]),
    requests = read_window(KEYS[first + 2]),
    day_key = KEYS[first + 3],
    spent = tonumber(redis.call("HGET", KEYS[first + 3], day) or "0"),
    leases_key = KEYS[first + 4],
    leases = redis.call("ZCOUNT", KEYS[first + 4], "(" .. string.format("%.0f", now), "+inf"),
  }
end

-- Microseconds until one slot is free, were nobody to settle before the lease runs out.
local function slot_wait(scope, limit)
  if scope.leases < limit then
    return 0
  end
  local from = "(" .. string.format("%.0f", now)
  local last = redis.call("ZRANGEBYSCORE", scope.leases_key, from, "+inf", "WITHSCORES", "LIMIT", scope.leases - limit, 1)
  return tonumber(last[2]) - now
end

local function spend_day(scope, day, amount)
  redis.call("HINCRBY", scope.day_key, day, amount)
  redis.call("EXPIRE", scope.day_key, 3 * 86400)
  scope.spent = scope.spent + amount
end

-- The reply of a success: time, percentile, day, then six numbers a scope.
local function report(scopes, day)
  local reply = { 1, now, tonumber(redis.call("GET", PERCENTILE) or "0"), day }
  for n = 1, SCOPES do
    local scope = scopes[n]
    local numbers = {
      scope.tokens.used, scope.tokens.newest, scope.requests.used, scope.requests.newest, scope.leases, scope.spent,
    }
    for i = 1, #numbers do
      reply[#reply + 1] = numbers[i]
    end
  end
  return reply
end
