-- KEYS 1 conversation (hash), 2 its messages (list), 3 the owner's conversations (sorted set by last change),
-- 4 its answers (hash: answer id to feedback, empty without), 5 whether it was deleted
-- ARGV 1 conversation id, 2 may create, 3 title, 4 now, 5 seconds to keep, 6 most messages, 7 most conversations,
-- 8 what the owner's keys begin with, 9.. messages.
-- A conversation that its customer deleted meanwhile stays deleted: only a question may create one, and none that was.

local base = ARGV[8]

local function forget(id)
  local answers = base .. ":answers:" .. id
  for _, answer in ipairs(redis.call("HKEYS", answers)) do
    redis.call("DEL", base .. ":answer:" .. answer)
  end
  redis.call("DEL", base .. ":conversation:" .. id, base .. ":messages:" .. id, answers)
  redis.call("ZREM", KEYS[3], id)
end

if redis.call("EXISTS", KEYS[1]) == 0 and (ARGV[2] == "0" or redis.call("EXISTS", KEYS[5]) == 1) then
  return 0
end
redis.call("HSETNX", KEYS[1], "title", ARGV[3])
redis.call("HSETNX", KEYS[1], "created_at", ARGV[4])
redis.call("HSET", KEYS[1], "updated_at", ARGV[4])
for i = 9, #ARGV do
  local answer = cjson.decode(ARGV[i]).answer_id
  if not answer then
    redis.call("RPUSH", KEYS[2], ARGV[i])
  elseif redis.call("HSETNX", KEYS[4], answer, "") == 1 then
    -- Once: whoever takes an answer over cannot know whether the writer before it came that far.
    redis.call("RPUSH", KEYS[2], ARGV[i])
    redis.call("SET", base .. ":answer:" .. answer, ARGV[1])
  end
end
while redis.call("LLEN", KEYS[2]) > tonumber(ARGV[6]) do
  local answer = cjson.decode(redis.call("LPOP", KEYS[2])).answer_id
  if answer then
    redis.call("HDEL", KEYS[4], answer)
    redis.call("DEL", base .. ":answer:" .. answer)
  end
end
redis.call("ZADD", KEYS[3], ARGV[4], ARGV[1])
local surplus = redis.call("ZCARD", KEYS[3]) - tonumber(ARGV[7])
if surplus > 0 then
  for _, id in ipairs(redis.call("ZRANGE", KEYS[3], 0, surplus - 1)) do
    forget(id)
  end
end
for i = 1, 4 do
  redis.call("EXPIRE", KEYS[i], ARGV[5])
end
for _, answer in ipairs(redis.call("HKEYS", KEYS[4])) do
  redis.call("EXPIRE", base .. ":answer:" .. answer, ARGV[5])
end
return 1
