-- Delete a conversation, and remember its deletion for `remember_seconds`.
-- KEYS: as in history_append.lua.
-- Arguments: conversation_id, remember_seconds, owner (the prefix of the owner's keys).
-- Returns 1, or 0 if the conversation does not exist.

local CONVERSATION, MESSAGES, CONVERSATIONS, ANSWERS, DELETED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local args = cmsgpack.unpack(ARGV[1])

if redis.call("EXISTS", CONVERSATION) == 0 then
  return 0
end
for _, answer_id in ipairs(redis.call("HKEYS", ANSWERS)) do
  redis.call("DEL", args.owner .. ":answer:" .. answer_id)
end
redis.call("DEL", CONVERSATION, MESSAGES, ANSWERS)
redis.call("ZREM", CONVERSATIONS, args.conversation_id)
redis.call("SET", DELETED, "", "EX", args.remember_seconds)
return 1
