-- Lists an owner's conversations, the last changed first; one round trip a page.
-- KEYS: the owner's conversations.
-- Arguments: owner (the prefix of the owner's keys), limit, last_id and last_change of the last one listed (empty: from
-- the newest on).
-- Returns of each, packed: id, changed (the score as text, exact for a cursor), title, created_at.

local CONVERSATIONS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])

local start = 0
if args.last_id ~= "" then
  -- Where it was listed, unless it has changed or gone since: then behind everything that is newer than it was.
  if redis.call("ZSCORE", CONVERSATIONS, args.last_id) == args.last_change then
    start = redis.call("ZREVRANK", CONVERSATIONS, args.last_id) + 1
  else
    start = redis.call("ZCOUNT", CONVERSATIONS, "(" .. args.last_change, "+inf")
  end
end
local listed = {}
while #listed < args.limit do
  local batch = redis.call("ZREVRANGE", CONVERSATIONS, start, start + args.limit - 1, "WITHSCORES")
  if #batch == 0 then
    break
  end
  for i = 1, #batch, 2 do
    local id, changed = batch[i], batch[i + 1]
    local stored = redis.call("HMGET", args.owner .. ":conversation:" .. id, "title", "created_at")
    local title, created_at = stored[1], stored[2]
    if created_at and #listed < args.limit then -- without: it has expired before its entry here
      listed[#listed + 1] = { id = id, changed = changed, title = title, created_at = created_at }
    end
  end
  start = start + #batch / 2
end
return cmsgpack.pack(listed)
