-- KEYS 1 a conversation's answers. ARGV 1 answer id, 2 feedback. Returns whether the conversation has that answer.

if redis.call("HEXISTS", KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1
