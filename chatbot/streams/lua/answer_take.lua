-- Takes an answer over, if its writer's lease has lapsed and it has not ended. Raises the epoch, so that appends of the
-- previous writer are rejected.
-- Arguments: the new lease in ms.
-- Returns nothing if the answer was not taken over; else epoch, sub, conversation, checkpoint, whether it is cancelled,
-- passages, outcome, output and events, in this order.

local ANSWER, EVENTS, OUTPUT, OPEN_ANSWERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local lease_end = redis.call("ZSCORE", OPEN_ANSWERS, ANSWER)
if not lease_end then
  return false
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(lease_end) > now then
  return false
end
if redis.call("EXISTS", ANSWER) == 0 then
  redis.call("ZREM", OPEN_ANSWERS, ANSWER)
  return false
end
local epoch = redis.call("HINCRBY", ANSWER, "epoch", 1)
redis.call("ZADD", OPEN_ANSWERS, now + ARGV[1], ANSWER)
local stored = redis.call("HMGET", ANSWER, "sub", "conversation", "frame", "cancelled", "passages", "outcome")
return {
  epoch, stored[1], stored[2], stored[3] or "", stored[4] and 1 or 0, stored[5] or "[]", stored[6] or "",
  redis.call("GET", OUTPUT) or "", redis.call("XRANGE", EVENTS, "-", "+"),
}
