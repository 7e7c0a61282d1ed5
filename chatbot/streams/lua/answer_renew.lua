-- Renews the leases of a writer's answers, all of one tenant; a lease of 0 ms gives them up.
-- KEYS: the tenant's open answers, then the answers, in the order of `writers`.
-- Arguments: lease_ms, reader_ms (how long a mark "read" counts), writers ({answer_id, epoch} each).
-- Returns, packed, each writer's standing (`WriterStanding` in log.py) by answer id.

local OPEN_ANSWERS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])
local REPLACED, OWNED, CANCELLED, DELETED, READ_ELSEWHERE, BEHIND = 0, 1, 2, 3, 4, 5

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local standings = {}
for i, writer in ipairs(args.writers) do
  local stored = redis.call("HMGET", KEYS[1 + i], "epoch", "cancelled", "read")
  local epoch, cancelled, read = stored[1], stored[2], stored[3]
  local standing = OWNED
  if not epoch then
    standing = redis.call("EXISTS", KEYS[1 + i] .. ":deleted") == 1 and DELETED or BEHIND
  elseif tonumber(epoch) > writer.epoch then
    standing = REPLACED
  elseif tonumber(epoch) < writer.epoch then
    standing = BEHIND -- Redis has forgotten that this writer took the answer over
  else
    -- XX: an answer that has ended meanwhile is not opened again.
    redis.call("ZADD", OPEN_ANSWERS, "XX", now + args.lease_ms, writer.answer_id)
    if cancelled then
      standing = CANCELLED
    elseif read and now - read < args.reader_ms then
      standing = READ_ELSEWHERE
    end
  end
  standings[writer.answer_id] = standing
end
return cmsgpack.pack(standings)
