-- KEYS 1 conversation (hash), 2 its messages (list), 3 the owner's conversations (sorted set by last change)
-- ARGV 1 conversation id, 2 may create, 3 title, 4 now, 5 seconds to keep, 6 most messages, 7 most conversations,
-- 8 what the owner's keys begin with, 9.. messages.
-- A conversation that its customer deleted meanwhile stays deleted: only a first question may create one.

if ARGV[2] == "0" and redis.call("EXISTS", KEYS[1]) == 0 then
  return 0
end
redis.call("HSETNX", KEYS[1], "title", ARGV[3])
redis.call("HSETNX", KEYS[1], "created_at", ARGV[4])
redis.call("HSET", KEYS[1], "updated_at", ARGV[4])
for i = 9, #ARGV do
  redis.call("RPUSH", KEYS[2], ARGV[i])
end
redis.call("LTRIM", KEYS[2], -tonumber(ARGV[6]), -1)
redis.call("ZADD", KEYS[3], ARGV[4], ARGV[1])
local surplus = redis.call("ZCARD", KEYS[3]) - tonumber(ARGV[7])
if surplus > 0 then
  for _, id in ipairs(redis.call("ZRANGE", KEYS[3], 0, surplus - 1)) do
    redis.call("DEL", ARGV[8] .. ":conversation:" .. id, ARGV[8] .. ":messages:" .. id)
    redis.call("ZREM", KEYS[3], id)
  end
end
for i = 1, 3 do
  redis.call("EXPIRE", KEYS[i], ARGV[5])
end
return 1
