-- Charges the used tokens in place of the reserved ones, once: it leaves a mark, and a second call changes nothing.
-- Without a reservation and a mark, Redis never had the reservation or has lost it: the used tokens are charged now.
-- Returns the state, or nothing if it was settled before.
-- Arguments: id, charge (tokens), answer_tokens (0: no sample), remember (answers), needed (answers for a percentile),
-- keep_seconds (of the mark), days.

if redis.call("EXISTS", SETTLED) == 1 then
  redis.call("DEL", RESERVATION) -- a failover may restore the mark and lose the deletion
  return false
end
local stored = redis.call("GETDEL", RESERVATION)
redis.call("SET", SETTLED, "", "EX", args.keep_seconds)
local record = stored and cjson.decode(stored) or charge_now(day_of(args.days), args.charge)

for _, name in ipairs(SCOPES) do
  redis.call("ZREM", KEYS_OF[name].leases, args.id)
end
local scopes = correct(record, args.charge, KEYS_OF)

if args.answer_tokens > 0 then
  redis.call("LPUSH", ANSWERS, args.answer_tokens)
  redis.call("LTRIM", ANSWERS, 0, args.remember - 1)
  redis.call("EXPIRE", ANSWERS, 30 * 86400)
  local answers = redis.call("LRANGE", ANSWERS, 0, -1)
  if #answers >= args.needed then
    for i = 1, #answers do
      answers[i] = tonumber(answers[i])
    end
    table.sort(answers)
    redis.call("SET", PERCENTILE, answers[math.ceil(0.95 * #answers)], "EX", 30 * 86400)
  end
end
return report(scopes, nil, not stored)
