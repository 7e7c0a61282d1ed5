-- Claims an Idempotency-Key unless it is claimed, or stands for an answer whose log lives.
-- Arguments: lease_ms, answers (the prefix of the tenant's answers' keys), and the claim (its JSON, kept as it is).
-- Returns the claim that stands there already, or nothing where this one was made.

local KEY = KEYS[1]
local args, claim = cmsgpack.unpack(ARGV[1]), ARGV[2]

local standing = redis.call("GET", KEY)
if standing then
  local answer_id = cjson.decode(standing).answer_id
  if not answer_id or redis.call("EXISTS", args.answers .. answer_id) == 1 then
    return standing
  end
end
redis.call("SET", KEY, claim, "PX", args.lease_ms)
return false
