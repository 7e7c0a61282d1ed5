-- KEYS 1 the owner's conversations. ARGV 1 what their keys begin with, 2 limit, 3 id and 4 change time of the last one listed
-- (empty: from the newest). Returns id, change time, title, creation time of each; one trip for a page.

local start = 0
if ARGV[3] ~= "" then
  -- Where it was listed, unless it has changed or gone since: then behind everything that is newer than it was.
  if redis.call("ZSCORE", KEYS[1], ARGV[3]) == ARGV[4] then
    start = redis.call("ZREVRANK", KEYS[1], ARGV[3]) + 1
  else
    start = redis.call("ZCOUNT", KEYS[1], "(" .. ARGV[4], "+inf")
  end
end
local found, limit = {}, tonumber(ARGV[2])
while #found < limit do
  local batch = redis.call("ZREVRANGE", KEYS[1], start, start + limit - 1, "WITHSCORES")
  if #batch == 0 then
    break
  end
  for i = 1, #batch, 2 do
    local stored = redis.call("HMGET", ARGV[1] .. ":conversation:" .. batch[i], "title", "created_at")
    if stored[2] and #found < limit then -- without: it has expired before its entry here
      found[#found + 1] = { batch[i], batch[i + 1], stored[1], stored[2] }
    end
  end
  start = start + #batch / 2
end
return found
