-- Opens an answer's log: its owner, the data for a successor, and its writer's lease (ms of Redis's time).
-- A second call changes only the lease. It changes nothing if another writer has taken the answer over or the answer
-- has ended, since the command of a caller that gave up may arrive late. A successor opens a log that Redis has lost,
-- or whose takeover it has lost.
-- Returns 0 if another writer has taken the answer over, else 1.
-- Arguments: epoch, lease_ms, keep_seconds, sub, conversation, then the checkpoint and the passages, stored as they are.
-- The hash's field `frame` is the checkpoint, `n` the number of events.

local ANSWER, OPEN_ANSWERS = KEYS[1], KEYS[2]
local args, checkpoint, passages = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

local epoch = redis.call("HGET", ANSWER, "epoch")
if epoch and tonumber(epoch) > args.epoch then
  return 0
end
if epoch and redis.call("HEXISTS", ANSWER, "frame") == 0 then
  return 1
end
local time = redis.call("TIME")
redis.call("HSETNX", ANSWER, "n", 0)
redis.call(
  "HSET", ANSWER, "epoch", args.epoch, "sub", args.sub, "conversation", args.conversation, "frame", checkpoint,
  "passages", passages
)
redis.call("EXPIRE", ANSWER, args.keep_seconds)
redis.call("ZADD", OPEN_ANSWERS, time[1] * 1000 + math.floor(time[2] / 1000) + args.lease_ms, ANSWER)
return 1
