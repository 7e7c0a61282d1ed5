-- Tells how far an answer is, and leaves its writer a word.
-- KEYS 1 the answer (hash), 2 the open answers.
-- ARGV 1 answer id, 2 who may know (sub), 3 the word: "read" (somebody reads it elsewhere), "cancelled", or "".
-- Returns nothing where there is no such answer of theirs; else how many events it has, and what is left of its
-- writer's lease (ms, negative once it has lapsed; absent where the answer has ended).

local known = redis.call("HMGET", KEYS[1], "sub", "n")
if known[1] ~= ARGV[2] then
  return false
end
local lease = redis.call("ZSCORE", KEYS[2], ARGV[1])
if not lease then
  return { tonumber(known[2]) }
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= "" then
  redis.call("HSET", KEYS[1], ARGV[3], now)
end
return { tonumber(known[2]), lease - now }
