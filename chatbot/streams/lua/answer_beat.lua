-- Writes the next number of a process's count.
-- KEYS: the process's count. Arguments: the number, keep_seconds.
-- Returns the number before it (0: there is none), and the name of this run of the server, where it may be asked.

local BEAT = KEYS[1]
local number, keep_seconds = ARGV[1], ARGV[2]

local before = redis.call("GET", BEAT)
redis.call("SET", BEAT, number, "EX", keep_seconds)
local info = redis.pcall("INFO", "server")
return { tonumber(before or 0), type(info) == "string" and info:match("run_id:(%x+)") or "" }
