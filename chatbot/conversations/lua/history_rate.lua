-- Store the feedback on an answer, replacing earlier feedback.
-- KEYS: the conversation's answers.
-- Arguments: answer_id, then the feedback (JSON, stored unchanged).
-- Returns 1, or 0 if the conversation has no such answer.

local ANSWERS = KEYS[1]
local args, feedback = cmsgpack.unpack(ARGV[1]), ARGV[2]

if redis.call("HEXISTS", ANSWERS, args.answer_id) == 0 then
  return 0
end
redis.call("HSET", ANSWERS, args.answer_id, feedback)
return 1
