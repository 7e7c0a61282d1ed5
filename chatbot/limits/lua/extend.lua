-- Raises a reservation to a total, in all scopes. Returns the state, or nothing where that was refused, or there is no
-- such reservation; then it has written nothing.
-- Arguments: id, total (tokens: not the difference, so that a command sent twice is charged once), lease (µs),
-- keep_seconds, limits (of each scope, by dimension).

local stored = redis.call("GET", RESERVATION)
if not stored then
  return false
end
local record = cjson.decode(stored)
local more = args.total - record.tokens

local scopes = read_scopes(record.day)
for name, scope in pairs(scopes) do
  local limit = args.limits[name]
  local rate_full = scope.window.tokens + more > limit.tokens_per_minute
  if more > 0 and (rate_full or scope.spent + more > limit.tokens_per_day) then
    return false
  end
end
if more <= 0 then
  return report(scopes)
end

for _, scope in pairs(scopes) do
  charge(scope.window, more, 0)
  spend_day(scope, record.day, more)
  redis.call("ZADD", scope.leases_key, "XX", "GT", now + args.lease, args.id)
  keep_leases(scope.leases_key, args.lease)
end
record.tokens = args.total
record.parts[#record.parts + 1] = part_of(scopes, more)
redis.call("SET", RESERVATION, cjson.encode(record), "EX", args.keep_seconds)
return report(scopes)
