-- Renews the leases of a writer's answers; a lease of 0 ms gives them up.
-- KEYS: the open answers, then the writer's answers, in the order of `epochs`.
-- Arguments: lease_ms, reader_ms (how long a mark "read" counts), epochs.
-- Returns each writer's standing (`WriterStanding` in log.py), in order.

local OPEN_ANSWERS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])
local REPLACED, OWNED, CANCELLED, DELETED, READ_ELSEWHERE, BEHIND = 0, 1, 2, 3, 4, 5

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local standings = {}
for i, own_epoch in ipairs(args.epochs) do
  local answer = KEYS[1 + i]
  local stored = redis.call("HMGET", answer, "epoch", "cancelled", "read")
  local epoch, cancelled, read = stored[1], stored[2], stored[3]
  local standing = OWNED
  if not epoch then
    standing = redis.call("EXISTS", answer .. ":deleted") == 1 and DELETED or BEHIND
  elseif tonumber(epoch) > own_epoch then
    standing = REPLACED
  elseif tonumber(epoch) < own_epoch then
    standing = BEHIND -- Redis has lost this writer's takeover
  else
    -- XX: an answer that has ended is not opened again.
    redis.call("ZADD", OPEN_ANSWERS, "XX", now + args.lease_ms, answer)
    if cancelled then
      standing = CANCELLED
    elseif read and now - read < args.reader_ms then
      standing = READ_ELSEWHERE
    end
  end
  standings[i] = standing
end
return standings
