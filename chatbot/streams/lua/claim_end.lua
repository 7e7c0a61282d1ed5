-- Replaces the claim on an Idempotency-Key, or removes it, if it still stands.
-- Arguments: keep_seconds, the claim, and its replacement (empty: none); both are JSON, compared and kept as they are.

local KEY = KEYS[1]
local args, claim, replacement = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

if redis.call("GET", KEY) ~= claim then
  return 0
end
if replacement == "" then
  redis.call("DEL", KEY)
else
  redis.call("SET", KEY, replacement, "EX", args.keep_seconds)
end
return 1
