-- Appends events and their model output, if the writer still owns the answer, and renews its lease.
-- Returns the writer's standing (`WriterStanding` in log.py).
-- A repeated append changes nothing: stored numbers are skipped, and output is written at its position.
-- Unlike in other scripts, arguments have positions, not names: this script runs for each token, and unpacking names
-- needed up to a tenth more of Redis's time. `AnswerLog.append` in log.py encodes them.

local ANSWER, EVENTS, OUTPUT, OPEN_ANSWERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, lease_ms, keep_seconds, ended, output_before, output, outcome = unpack(ARGV, 1, 7)
local FIRST_EVENT = 8 -- the first of three arguments per event: number, name and data
local REPLACED, OWNED, CANCELLED, DELETED, BEHIND = 0, 1, 2, 3, 5

local stored = redis.call("HMGET", ANSWER, "epoch", "n", "cancelled", "frame")
local stored_epoch, stored_n, cancelled, frame = stored[1], stored[2], stored[3], stored[4]
if not stored_epoch then
  return redis.call("EXISTS", ANSWER .. ":deleted") == 1 and DELETED or BEHIND
end
if stored_epoch ~= epoch then
  -- With a lower epoch, Redis has lost this writer's takeover.
  return tonumber(stored_epoch) < tonumber(epoch) and BEHIND or REPLACED
end
if not frame and ended == "0" then -- the answer has ended: this append arrives late
  return OWNED
end
local n = tonumber(stored_n)
-- The append must follow the stored events and output: a promoted replica or a restart may have lost some.
local follows = #ARGV < FIRST_EVENT or tonumber(ARGV[FIRST_EVENT]) <= n + 1
if not follows or (#output > 0 and redis.call("STRLEN", OUTPUT) < tonumber(output_before)) then
  return BEHIND
end
for i = FIRST_EVENT, #ARGV, 3 do
  local number, name, data = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  if number > n then
    n = number
    redis.call("XADD", EVENTS, "0-" .. n, "name", name, "data", data)
  end
end
if #ARGV >= FIRST_EVENT then
  redis.call("HSET", ANSWER, "n", n)
  if stored_n == "0" then
    redis.call("EXPIRE", EVENTS, keep_seconds)
  end
end
if ended ~= "0" then
  if ended == "2" and not cancelled then -- nobody read it; `claim.lua` uses this
    redis.call("HSET", ANSWER, "abandoned", 1)
  end
  redis.call("ZREM", OPEN_ANSWERS, ANSWER)
  redis.call("DEL", OUTPUT)
  redis.call("HDEL", ANSWER, "frame", "read", "cancelled", "outcome")
  redis.call("EXPIRE", ANSWER, keep_seconds)
  redis.call("EXPIRE", EVENTS, keep_seconds)
  return OWNED
end
if outcome ~= "" then
  redis.call("HSET", ANSWER, "outcome", outcome)
end
if #output > 0 then
  redis.call("SETRANGE", OUTPUT, output_before, output)
  redis.call("EXPIRE", OUTPUT, keep_seconds)
end
local time = redis.call("TIME")
redis.call("ZADD", OPEN_ANSWERS, time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms, ANSWER)
return cancelled and CANCELLED or OWNED
