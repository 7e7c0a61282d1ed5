-- Returns the progress of answers, and sets marks for their writers.
-- KEYS: the open answers, then the answers, in the order of `subs`.
-- Arguments: mark ("read": they are read on another replica; "cancelled"; or empty), subs (each answer's customer).
-- Returns, packed, each answer's `AnswerProgress` (log.py), in order; `lease_left` of a lapsed lease is negative.

local OPEN_ANSWERS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replies = {}
for i, sub in ipairs(args.subs) do
  local answer = KEYS[1 + i]
  local stored = redis.call("HMGET", answer, "sub", "n")
  if stored[1] ~= sub then
    replies[i] = { deleted = redis.call("EXISTS", answer .. ":deleted") == 1 }
  else
    local lease_end = redis.call("ZSCORE", OPEN_ANSWERS, answer)
    replies[i] = { events = tonumber(stored[2]), lease_left = lease_end and (lease_end - now) / 1000 or nil }
    if lease_end and args.mark ~= "" then
      redis.call("HSET", answer, args.mark, now)
    end
  end
end
return cmsgpack.pack(replies)
