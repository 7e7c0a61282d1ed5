-- Read a page of a conversation's messages, newest first, bounded by number and bytes.
-- KEYS: as in history_append.lua.
-- Arguments: before (the index after the newest message to read; -1: start at the newest), most_messages, most_bytes.
-- A message larger than most_bytes is read alone.
-- Returns title, created_at, updated_at, the index of the first message, then the messages, oldest first. If the
-- conversation does not exist, returns only whether it was recently deleted.

local CONVERSATION, MESSAGES, DELETED = KEYS[1], KEYS[2], KEYS[5]
local args = cmsgpack.unpack(ARGV[1])

local stored = redis.call("HMGET", CONVERSATION, "title", "created_at", "updated_at")
local title, created_at, updated_at = stored[1], stored[2], stored[3]
if not created_at then
  return { redis.call("EXISTS", DELETED) }
end
local first = redis.call("LLEN", MESSAGES)
if args.before >= 0 then
  first = math.min(first, args.before)
end
local newest_first, bytes = {}, 0
while first > 0 and #newest_first < args.most_messages do
  local message = redis.call("LINDEX", MESSAGES, first - 1)
  bytes = bytes + #message
  if #newest_first > 0 and bytes > args.most_bytes then
    break
  end
  newest_first[#newest_first + 1] = message
  first = first - 1
end
local page = { title or "", created_at, updated_at, first }
for i = #newest_first, 1, -1 do
  page[#page + 1] = newest_first[i]
end
return page
