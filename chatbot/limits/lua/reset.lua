-- Resets the minute's and the days' use of a scope to 0, and counts the reset: a settlement must not return tokens that
-- were charged before it. Running answers keep their slots. Returns the state.
-- Arguments: scope (its name), days.

local keys = KEYS_OF[args.scope]
local resets = tonumber(redis.call("HGET", keys.days, "resets") or 0)
redis.call("DEL", keys.window, keys.days)
redis.call("HSET", keys.days, "resets", resets + 1)
redis.call("EXPIRE", keys.days, 3 * 86400)

return report(read_scopes(day_of(args.days).name))
