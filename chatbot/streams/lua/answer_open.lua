-- Opens an answer's log: whose it is, what a successor needs, and the first writer's lease.
-- KEYS 1 the answer (hash), 2 the tenant's open answers (sorted set by the end of their leases, ms of Redis's time).
-- ARGV 1 answer id, 2 lease (ms), 3 seconds to keep, then fields and values of the hash.

local time = redis.call("TIME")
redis.call("HSET", KEYS[1], "epoch", 1, "n", 0, unpack(ARGV, 4))
redis.call("EXPIRE", KEYS[1], ARGV[3])
redis.call("ZADD", KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
