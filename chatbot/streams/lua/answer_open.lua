-- Opens an answer's log: its owner, what a successor needs, and the first writer's lease (ms of Redis's time).
-- Arguments: answer_id, lease_ms, keep_seconds, sub, conversation, then the checkpoint and the passages, kept as they are.

local ANSWER, OPEN_ANSWERS = KEYS[1], KEYS[2]
local args, checkpoint, passages = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

local time = redis.call("TIME")
redis.call(
  "HSET", ANSWER, "epoch", 1, "n", 0, "sub", args.sub, "conversation", args.conversation, "frame", checkpoint,
  "passages", passages
)
redis.call("EXPIRE", ANSWER, args.keep_seconds)
redis.call("ZADD", OPEN_ANSWERS, time[1] * 1000 + math.floor(time[2] / 1000) + args.lease_ms, args.answer_id)
return 1
