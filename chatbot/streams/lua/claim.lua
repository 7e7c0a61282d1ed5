-- Replaces the value of an Idempotency-Key, unless it is another request's claim, or an answer whose log exists. But an
-- answer that ended in a retryable error, or was cancelled because nobody read it, is replaced.
-- Arguments: keep_ms, answers (the prefix of the tenant's answers' keys), the request's own claim, which may be
-- replaced, and the new value (empty: remove the key). Claim and value are JSON, compared and stored unchanged.
-- Returns the current value, or nothing if it was replaced.

local KEY = KEYS[1]
local args, own, value = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

local function may_be_replaced(answer)
  local last = redis.call("XREVRANGE", answer .. ":events", "+", "-", "COUNT", 1)[1]
  local is_read, event = pcall(cjson.decode, last and last[2][4] or "null")
  if not is_read or type(event) ~= "table" then
    return false
  end
  local is_unread = event.finish_reason == "cancelled" and redis.call("HEXISTS", answer, "abandoned") == 1
  return is_unread or (last[2][2] == "error" and event.retryable == true)
end

local current = redis.call("GET", KEY)
if current and current ~= own then
  local answer_id = cjson.decode(current).answer_id
  local answer = answer_id and args.answers .. answer_id
  if not answer or (redis.call("EXISTS", answer) == 1 and not may_be_replaced(answer)) then
    return current
  end
end
if value == "" then
  redis.call("DEL", KEY)
else
  redis.call("SET", KEY, value, "PX", args.keep_ms)
end
return false
