-- Takes an answer over: only where its writer's lease has lapsed and it has not ended. Raises the epoch, so that
-- whatever its old writer still sends is refused.
-- KEYS 1 the answer (hash), 2 its events (stream), 3 its token ids, 4 the open answers.  ARGV 1 answer id, 2 lease (ms).
-- Returns nothing where there is nothing to take; else the epoch, the hash's sub, conversation, frame and "cancelled",
-- the token ids, and the events.

local lease = redis.call("ZSCORE", KEYS[4], ARGV[1])
if not lease then
  return false
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(lease) > now then
  return false
end
if redis.call("EXISTS", KEYS[1]) == 0 then
  redis.call("ZREM", KEYS[4], ARGV[1])
  return false
end
local epoch = redis.call("HINCRBY", KEYS[1], "epoch", 1)
redis.call("ZADD", KEYS[4], now + ARGV[2], ARGV[1])
local known = redis.call("HMGET", KEYS[1], "sub", "conversation", "frame", "cancelled")
return {
  epoch,
  known[1],
  known[2],
  known[3] or "",
  known[4] and 1 or 0,
  redis.call("GET", KEYS[3]) or "",
  redis.call("XRANGE", KEYS[2], "-", "+"),
}
