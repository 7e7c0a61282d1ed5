-- KEYS as in history_append.lua. ARGV 1 conversation id, 2 seconds to remember that it was deleted,
-- 3 what the owner's keys begin with. Returns whether there was one.

if redis.call("EXISTS", KEYS[1]) == 0 then
  return 0
end
for _, answer in ipairs(redis.call("HKEYS", KEYS[4])) do
  redis.call("DEL", ARGV[3] .. ":answer:" .. answer)
end
redis.call("DEL", KEYS[1], KEYS[2], KEYS[4])
redis.call("ZREM", KEYS[3], ARGV[1])
redis.call("SET", KEYS[5], "", "EX", ARGV[2])
return 1
