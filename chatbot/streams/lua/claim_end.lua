-- KEYS 1 an Idempotency-Key. ARGV 1 the claim on it, 2 what takes its place (empty: nothing), 3 seconds to keep that.
-- Returns whether the claim still stood.

if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == "" then
  redis.call("DEL", KEYS[1])
else
  redis.call("SET", KEYS[1], ARGV[2], "EX", ARGV[3])
end
return 1
