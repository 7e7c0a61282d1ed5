-- Claims an Idempotency-Key unless it is claimed, or stands for an answer whose log lives. No key stands
-- for an answer that ended in an error after which the same request may succeed, or unread because nobody was there.
-- Arguments: lease_ms, answers (the prefix of the tenant's answers' keys), and the claim (its JSON, kept as it is).
-- Returns the claim that stands there already, or nothing where this one was made.

local KEY = KEYS[1]
local args, claim = cmsgpack.unpack(ARGV[1]), ARGV[2]

local function is_worth_another(answer)
  local last = redis.call("XREVRANGE", answer .. ":events", "+", "-", "COUNT", 1)[1]
  local is_read, event = pcall(cjson.decode, last and last[2][4] or "null")
  if not is_read or type(event) ~= "table" then
    return false
  end
  local is_unread = event.finish_reason == "cancelled" and redis.call("HEXISTS", answer, "abandoned") == 1
  return is_unread or (last[2][2] == "error" and event.retryable == true)
end

local standing = redis.call("GET", KEY)
if standing then
  local answer_id = cjson.decode(standing).answer_id
  local answer = answer_id and args.answers .. answer_id
  if not answer or (redis.call("EXISTS", answer) == 1 and not is_worth_another(answer)) then
    return standing
  end
end
redis.call("SET", KEY, claim, "PX", args.lease_ms)
return false
