-- Append messages to a conversation, within its bounds and its owner's.
-- Only a question may create a conversation, and a deleted conversation is not created again.
-- A question is not appended again if it is among the newest messages with the same answer id.
-- KEYS: the conversation (hash), its messages (list), the owner's conversations (sorted set by last change), its answers
-- (hash: answer id to feedback, "" without feedback), and the marker of a deleted conversation.
-- Arguments: conversation_id, may_create, title, now (Unix seconds as text), keep_seconds, most_messages,
-- most_conversations, owner (the prefix of the owner's keys); then the messages (JSON, stored unchanged).
-- Returns 1, or 0 if nothing was written because the conversation does not exist and is not created.

local CONVERSATION, MESSAGES, CONVERSATIONS, ANSWERS, DELETED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local args, FIRST_MESSAGE = cmsgpack.unpack(ARGV[1]), 2

local function answer_key(answer_id)
  return args.owner .. ":answer:" .. answer_id
end

local NEWEST = -10

local function is_asked(answered_by)
  local answered = '"answered_by":' .. cjson.encode(answered_by)
  for _, message in ipairs(redis.call("LRANGE", MESSAGES, NEWEST, -1)) do
    if message:find(answered, 1, true) then
      return true
    end
  end
  return false
end

local function forget(conversation_id)
  local answers = args.owner .. ":answers:" .. conversation_id
  for _, answer_id in ipairs(redis.call("HKEYS", answers)) do
    redis.call("DEL", answer_key(answer_id))
  end
  redis.call(
    "DEL", args.owner .. ":conversation:" .. conversation_id, args.owner .. ":messages:" .. conversation_id, answers
  )
  redis.call("ZREM", CONVERSATIONS, conversation_id)
end

if redis.call("EXISTS", CONVERSATION) == 0 and not (args.may_create and redis.call("EXISTS", DELETED) == 0) then
  return 0
end
redis.call("HSETNX", CONVERSATION, "title", args.title)
redis.call("HSETNX", CONVERSATION, "created_at", args.now)
redis.call("HSET", CONVERSATION, "updated_at", args.now)
for i = FIRST_MESSAGE, #ARGV do
  local message = ARGV[i]
  local decoded = cjson.decode(message)
  local answer_id, answered_by = decoded.answer_id, decoded.answered_by
  if not answer_id then
    if not (answered_by and is_asked(answered_by)) then
      redis.call("RPUSH", MESSAGES, message)
    end
  elseif redis.call("HSETNX", ANSWERS, answer_id, "") == 1 then
    -- Only once: a successor cannot know whether the previous writer has already appended the answer.
    redis.call("RPUSH", MESSAGES, message)
    redis.call("SET", answer_key(answer_id), args.conversation_id)
  end
end
while redis.call("LLEN", MESSAGES) > args.most_messages do
  local answer_id = cjson.decode(redis.call("LPOP", MESSAGES)).answer_id
  if answer_id then
    redis.call("HDEL", ANSWERS, answer_id)
    redis.call("DEL", answer_key(answer_id))
  end
end
redis.call("ZADD", CONVERSATIONS, args.now, args.conversation_id)
local surplus = redis.call("ZCARD", CONVERSATIONS) - args.most_conversations
if surplus > 0 then
  for _, conversation_id in ipairs(redis.call("ZRANGE", CONVERSATIONS, 0, surplus - 1)) do
    forget(conversation_id)
  end
end
for _, key in ipairs({ CONVERSATION, MESSAGES, CONVERSATIONS, ANSWERS }) do
  redis.call("EXPIRE", key, args.keep_seconds)
end
for _, answer_id in ipairs(redis.call("HKEYS", ANSWERS)) do
  redis.call("EXPIRE", answer_key(answer_id), args.keep_seconds)
end
return 1
