-- Claims an Idempotency-Key unless it is claimed, or stands for an answer whose log lives.
-- KEYS 1 the key. ARGV 1 the claim, 2 its lease in milliseconds, 3 what the keys of the tenant's answers begin with.
-- Returns what stands there already, or nothing where the claim was made.

local found = redis.call("GET", KEYS[1])
if found then
  local answer = cjson.decode(found).answer_id
  if not answer or redis.call("EXISTS", ARGV[3] .. answer) == 1 then
    return found
  end
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return false
