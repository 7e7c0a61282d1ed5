-- List an owner's conversations, last changed first, in one round trip per page.
-- KEYS: the owner's conversations.
-- Arguments: owner (the prefix of the owner's keys), limit, last_id and last_change of the last listed conversation
-- (empty: start at the newest).
-- Returns for each, packed: id, changed (the exact score as text, for a cursor), title, created_at.

local CONVERSATIONS = KEYS[1]
local args = cmsgpack.unpack(ARGV[1])

local start = 0
if args.last_id ~= "" then
  -- Continue after the last listed conversation; if it has changed or is gone, after all newer ones.
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
    if created_at and #listed < args.limit then -- without created_at, it has expired before its entry here
      listed[#listed + 1] = { id = id, changed = changed, title = title, created_at = created_at }
    end
  end
  start = start + #batch / 2
end
return cmsgpack.pack(listed)
