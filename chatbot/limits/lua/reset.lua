-- Forgets what a scope has spent of its minute and of its days, and counts that it did: what was charged before must not
-- be given back a second time when it is settled. Slots stay with the answers that run. Returns the state.
-- Arguments: scope (its name), days.

local keys = KEYS_OF[args.scope]
local resets = tonumber(redis.call("HGET", keys.days, "resets") or 0)
redis.call("DEL", keys.window, keys.days)
redis.call("HSET", keys.days, "resets", resets + 1)
redis.call("EXPIRE", keys.days, 3 * 86400)

return report(read_scopes(day_of(args.days).name))
