-- ARGV 2 id, 3 tokens in all after this, 4 lease (µs), 5 seconds to keep the reservation,
-- 6..13: for tenant, user, model in turn: tokens a minute, tokens a day.
-- The total is sent, not the difference, so that a command sent twice is charged once. A refusal writes nothing.

local id, total, lease = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call("GET", RESERVATION)
if not stored then
  return "0"
end
local record = cjson.decode(stored)
local more = total - record.tokens

local scopes = {}
for n = 1, SCOPES do
  local limit = 5 + (n - 1) * 2
  scopes[n] = read_scope(n, record.day)
  local rate, today = tonumber(ARGV[limit + 1]), tonumber(ARGV[limit + 2])
  if more > 0 and (scopes[n].window.tokens + more > rate or scopes[n].spent + more > today) then
    return "0"
  end
end
if more <= 0 then
  return report(scopes)
end

for n = 1, SCOPES do
  local scope = scopes[n]
  charge(scope.window, more, 0)
  spend_day(scope, record.day, more)
  redis.call("ZADD", scope.leases_key, "XX", "GT", now + lease, id)
  keep_leases(scope.leases_key, lease)
end
record.tokens = total
record.parts[#record.parts + 1] = part_of(scopes, more)
redis.call("SET", RESERVATION, cjson.encode(record), "EX", ARGV[5])
return report(scopes)
