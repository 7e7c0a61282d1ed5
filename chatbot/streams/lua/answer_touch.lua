-- Tells how far answers of one tenant are, and leaves marks for their writers.
-- KEYS: the tenant's open answers, then the answers, in the order of `answers`.
-- Arguments: mark ("read": they are read on another replica; "cancelled"; or empty), answers ({answer_id, sub} each, sub
-- of the caller).
-- Returns, packed, for each answer in order: false where the caller has no such answer; else its events and, unless it
-- has ended, the milliseconds left of its writer's lease (negative once it has lapsed).

local OPEN_ANSWERS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replies = {}
for i, answer in ipairs(args.answers) do
  local stored = redis.call("HMGET", KEYS[1 + i], "sub", "n")
  local sub, n = stored[1], stored[2]
  if sub ~= answer.sub then
    replies[i] = false
  else
    local lease_end = redis.call("ZSCORE", OPEN_ANSWERS, answer.answer_id)
    replies[i] = { events = tonumber(n), lease_left_ms = lease_end and lease_end - now or nil }
    if lease_end and args.mark ~= "" then
      redis.call("HSET", KEYS[1 + i], args.mark, now)
    end
  end
end
return cmsgpack.pack(replies)
