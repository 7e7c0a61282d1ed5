-- Stores the next number of a process's count.
-- KEYS: the process's count. Arguments: the number, keep_seconds.
-- Returns the previous number (0: none), and the id of this run of the server ("" if INFO is not permitted).

local BEAT = KEYS[1]
local number, keep_seconds = ARGV[1], ARGV[2]

local before = redis.call("GET", BEAT)
redis.call("SET", BEAT, number, "EX", keep_seconds)
local info = redis.pcall("INFO", "server")
return { tonumber(before or 0), type(info) == "string" and info:match("run_id:(%x+)") or "" }
