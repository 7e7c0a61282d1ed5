-- Tells how far an answer is, and leaves a mark for its writer.
-- Arguments: answer_id, sub (the caller's), mark ("read": it is read on another replica; "cancelled"; or empty).
-- Returns nothing where the caller has no such answer; else, packed, its events and, unless it has ended, the
-- milliseconds left of its writer's lease (negative once it has lapsed).

local ANSWER, OPEN_ANSWERS = KEYS[1], KEYS[2]
local args = cmsgpack.unpack(ARGV[1])

local stored = redis.call("HMGET", ANSWER, "sub", "n")
local sub, n = stored[1], stored[2]
if sub ~= args.sub then
  return false
end
local lease_end = redis.call("ZSCORE", OPEN_ANSWERS, args.answer_id)
if not lease_end then
  return cmsgpack.pack({ events = tonumber(n) })
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if args.mark ~= "" then
  redis.call("HSET", ANSWER, args.mark, now)
end
return cmsgpack.pack({ events = tonumber(n), lease_left_ms = lease_end - now })
