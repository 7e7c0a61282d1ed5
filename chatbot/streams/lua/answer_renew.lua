-- Renews the leases of a writer's answers, all of one tenant; a lease of 0 gives them up.
-- KEYS 1 the open answers, 2.. the answers (hashes).
-- ARGV 1 lease (ms), 2 how long a reader elsewhere counts (ms), then per answer: id, epoch.
-- Returns per answer what `answer_append` does, and 4: owned, and somebody reads it on another replica.

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local standings = {}
for i = 2, #KEYS do
  local id, epoch = ARGV[2 * i - 1], ARGV[2 * i]
  local known = redis.call("HMGET", KEYS[i], "epoch", "cancelled", "read")
  local standing = 1
  if not known[1] then
    standing = 3
  elseif known[1] ~= epoch then
    standing = 0
  else
    -- XX: an answer that has ended meanwhile is not opened again.
    redis.call("ZADD", KEYS[1], "XX", now + ARGV[1], id)
    if known[2] then
      standing = 2
    elseif known[3] and now - known[3] < tonumber(ARGV[2]) then
      standing = 4
    end
  end
  standings[#standings + 1] = standing
end
return standings
