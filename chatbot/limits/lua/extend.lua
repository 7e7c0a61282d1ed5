-- Raises a reservation to a total, in all scopes; one that Redis has lost is reserved again. Returns the state, or
-- nothing, after writing nothing, if a limit is reached or the reservation is settled.
-- Arguments: id, total (tokens: not the difference, so that a command sent twice is charged once), lease (µs),
-- keep_seconds, limits (of each scope, by dimension), days.

local stored = redis.call("GET", RESERVATION)
if not stored and redis.call("EXISTS", SETTLED) == 1 then
  return false
end
local record = stored and cjson.decode(stored) or record_of(day_of(args.days).name, 0, {})
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
  charge(scope.window, more, stored and 0 or 1)
  spend_day(scope, record.day, more)
  if stored then
    redis.call("ZADD", scope.leases_key, "XX", "GT", now + args.lease, args.id)
  else
    redis.call("ZADD", scope.leases_key, now + args.lease, args.id)
  end
  keep_leases(scope.leases_key, args.lease)
end
record.tokens = args.total
record.parts[#record.parts + 1] = part_of(scopes, more)
redis.call("SET", RESERVATION, cjson.encode(record), "EX", args.keep_seconds)
return report(scopes, nil, not stored)
