-- ARGV 2 the scope's number, 3 today, 4 its end (µs), 5 tomorrow, 6 its end.
-- Forgets what the scope has spent of its minute and of its days, and counts that it did: what was charged before must
-- not be given back a second time when it is settled. Slots stay with the answers that run.

local first = (tonumber(ARGV[2]) - 1) * 3
local resets = tonumber(redis.call("HGET", KEYS[first + 2], "resets") or 0)
redis.call("DEL", KEYS[first + 1], KEYS[first + 2])
redis.call("HSET", KEYS[first + 2], "resets", resets + 1)
redis.call("EXPIRE", KEYS[first + 2], 3 * 86400)

local day = day_of(ARGV[3], ARGV[4], ARGV[5], ARGV[6])
local scopes = {}
for n = 1, SCOPES do
  scopes[n] = read_scope(n, day)
end
return report(scopes)
