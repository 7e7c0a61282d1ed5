-- The functions that the ledger's scripts share; this text is prepended to each of them.
--
-- A window is a hash of one-second buckets of tokens (t<second>) and requests (r<second>). It also has their running
-- sums (T and R), the oldest second that may have a bucket (o), and the newest second of each kind (nt, nr).
-- A reservation reads only the buckets that have become stale since the last one; only a refusal reads all buckets.
-- Tokens of second s may have been charged at its end, so they count until s + 61: no 60 s exceed the limit.
-- The generation (g) rises when the clock is set back, because a removed second may then come again: a charge of an
-- older generation is corrected only in the day's tokens.
-- Times are whole microseconds (exact in a double until the year 2255), so the wait of a refusal is exact.
--
-- KEYS: each scope's window, days and leases; then the reservation, the lengths of the tenant's last answers, their
-- 95th percentile, and the mark that the reservation is settled.
-- Every script accepts `now` (microseconds, for tests) in place of the server's time.

local SPAN, MICRO = 61, 1000000
local SCOPES = { "tenant", "user", "model" }
local KEYS_OF = {}
for n, name in ipairs(SCOPES) do
  KEYS_OF[name] = { window = KEYS[3 * n - 2], days = KEYS[3 * n - 1], leases = KEYS[3 * n] }
end
local RESERVATION, ANSWERS, PERCENTILE, SETTLED = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local args = cmsgpack.unpack(ARGV[1])

local function current_time()
  if args.now then
    return args.now
  end
  local parts = redis.call("TIME")
  return tonumber(parts[1]) * MICRO + tonumber(parts[2])
end

local now = current_time()
local second = math.floor(now / MICRO)

local function read_window(key)
  local now_tokens, now_requests = "t" .. second, "r" .. second
  local stored = redis.call("HMGET", key, "T", "R", "o", "nt", "nr", now_tokens, now_requests, "g")
  local window = {
    key = key,
    tokens = tonumber(stored[1] or 0),
    requests = tonumber(stored[2] or 0),
    oldest = tonumber(stored[3] or second),
    newest_tokens = tonumber(stored[4] or 0),
    newest_requests = tonumber(stored[5] or 0),
    bucket_tokens = tonumber(stored[6] or 0),
    bucket_requests = tonumber(stored[7] or 0),
    generation = tonumber(stored[8] or 0),
    stale = {},
  }
  local last_stale, newest = second - SPAN, math.max(window.newest_tokens, window.newest_requests)
  -- All buckets are stale. So are those more than a window in the future, which a clock that was set back has left:
  -- otherwise they would count until the clock has reached them again.
  if newest <= last_stale or newest > second + SPAN then
    window.tokens, window.requests, window.newest_tokens, window.newest_requests = 0, 0, 0, 0
    window.oldest, window.all_stale = second, stored[3] and true
  elseif window.oldest <= last_stale then
    for at = window.oldest, last_stale do
      window.stale[#window.stale + 1] = "t" .. at
      window.stale[#window.stale + 1] = "r" .. at
    end
    local stale_buckets = redis.call("HMGET", key, unpack(window.stale))
    for i = 1, #stale_buckets, 2 do
      window.tokens = window.tokens - (stale_buckets[i] or 0)
      window.requests = window.requests - (stale_buckets[i + 1] or 0)
    end
    window.oldest = last_stale + 1
  end
  return window
end

-- Returns the microseconds until enough of the oldest buckets (fields `letter`<second>) are stale for `amount` to fit
-- under `limit`. `amount` is at most `limit`.
local function window_wait(window, letter, used, amount, limit)
  local excess = used + amount - limit
  if excess <= 0 then
    return 0
  end
  local newest = math.max(window.newest_tokens, window.newest_requests)
  local fields = {}
  for at = window.oldest, newest do
    fields[#fields + 1] = letter .. at
  end
  local buckets = redis.call("HMGET", window.key, unpack(fields))
  for i = 1, #buckets do
    excess = excess - (buckets[i] or 0)
    if excess <= 0 then
      return (window.oldest + i - 1 + SPAN) * MICRO - now
    end
  end
  return SPAN * MICRO
end

local function charge(window, tokens, requests)
  if window.all_stale or second < window.newest_tokens then
    window.generation = window.generation + 1
  end
  if window.all_stale then
    redis.call("DEL", window.key)
  elseif #window.stale > 0 then
    redis.call("HDEL", window.key, unpack(window.stale))
  end
  window.tokens, window.newest_tokens = window.tokens + tokens, math.max(window.newest_tokens, second)
  window.requests = window.requests + requests
  if requests > 0 then
    window.newest_requests = math.max(window.newest_requests, second)
  end
  redis.call(
    "HSET", window.key, "T", window.tokens, "R", window.requests, "o", math.min(window.oldest, second),
    "nt", window.newest_tokens, "nr", window.newest_requests, "g", window.generation,
    "t" .. second, window.bucket_tokens + tokens, "r" .. second, window.bucket_requests + requests
  )
  if window.bucket_requests == 0 then -- once a second is enough
    redis.call("EXPIRE", window.key, 2 * SPAN)
  end
end

-- Keeps the leases until the longest of them ends, and 10 minutes more, so that few reservations need an EXPIRE.
local function keep_leases(key, lease)
  local keep = math.ceil(lease / MICRO) + SPAN
  if redis.call("TTL", key) < keep then
    redis.call("EXPIRE", key, keep + 600)
  end
end

-- Returns the current one of `days` ({name, ends} of today and tomorrow): the caller's clock may be behind the server's.
local function day_of(days)
  return now >= days.today.ends and days.tomorrow or days.today
end

-- Returns the state of the scope with these keys; `day` is the name of the day, a field of the scope's days.
local function read_scope(keys, day)
  local days = redis.call("HMGET", keys.days, day, "resets")
  return {
    window = read_window(keys.window),
    day_key = keys.days,
    spent = tonumber(days[1] or 0),
    resets = tonumber(days[2] or 0),
    leases_key = keys.leases,
    leases = redis.call("ZCOUNT", keys.leases, "(" .. string.format("%.0f", now), "+inf"),
  }
end

local function read_scopes(day)
  local scopes = {}
  for _, name in ipairs(SCOPES) do
    scopes[name] = read_scope(KEYS_OF[name], day)
  end
  return scopes
end

-- The last days before the current one that are kept: the key of a scope with daily use never expires.
local DAYS_BEFORE = 2

local function forget_days_before(key, day)
  local before = {}
  for _, name in ipairs(redis.call("HKEYS", key)) do
    if name:find("^%d+$") and name < day then
      before[#before + 1] = name
    end
  end
  table.sort(before)
  for i = 1, #before - DAYS_BEFORE do
    redis.call("HDEL", key, before[i])
  end
end

local function spend_day(scope, day, amount)
  redis.call("HINCRBY", scope.day_key, day, amount)
  if scope.spent == 0 then -- the day's first tokens, or the first after all were returned
    forget_days_before(scope.day_key, day)
    redis.call("EXPIRE", scope.day_key, 3 * 86400)
  end
  scope.spent = scope.spent + amount
end

-- Returns a part of a reservation: its second, its tokens, the number of each scope's resets at that time (a reset
-- forgives only earlier charges), and the generation of each window.
local function part_of(scopes, tokens)
  local resets, generations = {}, {}
  for n, name in ipairs(SCOPES) do
    resets[n], generations[n] = scopes[name].resets, scopes[name].window.generation
  end
  return { second, tokens, resets, generations }
end

-- Returns the prefix of a scope's keys; `keys_under` returns the keys with a prefix, for another caller's reservation.
local function prefix_of(keys)
  return string.sub(keys.window, 1, -#":window" - 1)
end

local function keys_under(prefix)
  return { window = prefix .. ":window", days = prefix .. ":days", leases = prefix .. ":leases" }
end

-- Returns the stored form of a reservation.
local function record_of(day, tokens, parts)
  return {
    day = day,
    tokens = tokens,
    parts = parts,
    user = prefix_of(KEYS_OF.user),
    model = prefix_of(KEYS_OF.model),
  }
end

-- Charges the used tokens in place of the reserved ones, in the scopes with these keys; returns the scopes' states.
-- Unused tokens are returned to the parts where they were charged, the latest extension first. Tokens used beyond the
-- reservation are added to the latest part.
local function correct(record, used, keys_of)
  local corrections = {}
  local function add_correction(part, amount)
    local at, _, resets, generations = unpack(part)
    corrections[#corrections + 1] = { at = at, amount = amount, resets = resets, generations = generations }
  end
  local unused = record.tokens - used
  if unused < 0 then
    add_correction(record.parts[#record.parts], -unused)
  end
  for i = #record.parts, 1, -1 do
    local returned = math.min(unused, record.parts[i][2])
    if returned > 0 then
      add_correction(record.parts[i], -returned)
      unused = unused - returned
    end
  end

  local scopes = {}
  for n, name in ipairs(SCOPES) do
    local scope, spent = read_scope(keys_of[name], record.day), 0
    local window = scope.window
    for i = 1, #corrections do
      local part = corrections[i]
      if part.resets[n] == scope.resets then -- otherwise a reset has forgiven it
        spent = spent + part.amount
        if part.at >= window.oldest and part.generations[n] == window.generation and not window.all_stale then
          redis.call("HINCRBY", window.key, "t" .. part.at, part.amount)
          redis.call("HINCRBY", window.key, "T", part.amount)
          window.tokens = window.tokens + part.amount
        end
      end
    end
    if spent ~= 0 then
      spend_day(scope, record.day, spent)
    end
    scopes[name] = scope
  end
  return scopes
end

-- Returns the tokens of the tenant's reservations whose processes died: their leases have ended without a settlement.
-- Each reservation stays with 0 tokens, so that a late settlement charges the used ones.
local MOST_LAPSED = 10 -- at a time

local function give_back_lapsed()
  local leases = KEYS_OF.tenant.leases
  local lapsed = redis.call("ZRANGEBYSCORE", leases, "-inf", string.format("%.0f", now), "LIMIT", 0, MOST_LAPSED)
  for _, id in ipairs(lapsed) do
    local key = string.sub(RESERVATION, 1, -#(args.id or "") - 1) .. id
    local stored = redis.call("GET", key)
    local record = stored and cjson.decode(stored)
    if record then
      local last = cjson.decode(stored).parts[#record.parts]
      last[2] = 0
      local emptied = { day = record.day, tokens = 0, parts = { last }, user = record.user, model = record.model }
      if redis.pcall("SET", key, cjson.encode(emptied), "KEEPTTL").err then
        return -- Redis accepts no writes, but the script may still read
      end
      local keys_of = { tenant = KEYS_OF.tenant, user = keys_under(record.user), model = keys_under(record.model) }
      redis.call("ZREM", keys_of.user.leases, id)
      redis.call("ZREM", keys_of.model.leases, id)
      correct(record, 0, keys_of)
    end
    redis.pcall("ZREM", leases, id)
  end
end

-- Charges tokens and a request now, for a reservation that Redis lacks; returns the record of such a reservation.
local function charge_now(day, tokens)
  local scopes = read_scopes(day.name)
  for _, scope in pairs(scopes) do
    charge(scope.window, tokens, 1)
    spend_day(scope, day.name, tokens)
  end
  return record_of(day.name, tokens, { part_of(scopes, tokens) })
end

-- The reply of every script (`LedgerReply` in ledger.py); a success has no `refusal`. `was_lost`: Redis lacked the
-- reservation and has charged it again.
local function report(scopes, refusal, was_lost)
  local uses = {}
  for name, scope in pairs(scopes) do
    uses[name] = {
      tokens = scope.window.tokens,
      newest_tokens = scope.window.newest_tokens,
      requests = scope.window.requests,
      newest_request = scope.window.newest_requests,
      slots = scope.leases,
      today = scope.spent,
    }
  end
  return cmsgpack.pack({
    now = now,
    percentile = tonumber(redis.call("GET", PERCENTILE) or 0),
    uses = uses,
    refusal = refusal,
    was_lost = was_lost or false,
  })
end
