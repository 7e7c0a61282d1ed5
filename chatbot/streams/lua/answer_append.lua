-- Appends events and the token ids behind them, if the writer still owns the answer, and renews its lease.
-- KEYS 1 the answer (hash), 2 its events (stream), 3 its token ids (packed, 4 bytes each), 4 the open answers.
-- ARGV 1 answer id, 2 epoch, 3 lease (ms), 4 seconds to keep, 5 "1" where the last event is among them,
-- 6 how many token ids came before these, 7 these, then per event: n, name, data.
-- Returns 0 replaced, 1 owned, 2 owned but to be cancelled, 3 forgotten: its customer deleted it.
-- An append that is sent again changes nothing: a number that is there is skipped, and ids have their place.

local known = redis.call("HMGET", KEYS[1], "epoch", "n", "cancelled")
if not known[1] then
  return 3
end
if known[1] ~= ARGV[2] then
  return 0
end
local n = tonumber(known[2])
for i = 8, #ARGV, 3 do
  if tonumber(ARGV[i]) > n then
    n = tonumber(ARGV[i])
    redis.call("XADD", KEYS[2], "0-" .. n, "name", ARGV[i + 1], "data", ARGV[i + 2])
  end
end
if #ARGV > 7 then
  redis.call("HSET", KEYS[1], "n", n)
  if known[2] == "0" then
    redis.call("EXPIRE", KEYS[2], ARGV[4])
  end
end
if ARGV[5] == "1" then
  redis.call("ZREM", KEYS[4], ARGV[1])
  redis.call("DEL", KEYS[3])
  redis.call("HDEL", KEYS[1], "frame", "read", "cancelled")
  redis.call("EXPIRE", KEYS[1], ARGV[4])
  redis.call("EXPIRE", KEYS[2], ARGV[4])
  return 1
end
if #ARGV[7] > 0 then
  local ends = 4 * ARGV[6] + #ARGV[7]
  if redis.call("SETRANGE", KEYS[3], 4 * ARGV[6], ARGV[7]) > ends then
    -- A successor goes on before the ids of a character that its predecessor did not complete.
    redis.call("SET", KEYS[3], redis.call("GETRANGE", KEYS[3], 0, ends - 1))
  end
  redis.call("EXPIRE", KEYS[3], ARGV[4])
end
local time = redis.call("TIME")
redis.call("ZADD", KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[1])
return known[3] and 2 or 1
