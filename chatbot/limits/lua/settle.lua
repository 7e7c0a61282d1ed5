-- Charges what was used in place of what was reserved, once: a mark stays, and a second call changes nothing. Where
-- there is neither a reservation nor a mark Redis has forgotten the reservation, and what was used is charged now.
-- Returns the state, or nothing where it was settled before.
-- Arguments: id, charge (tokens), answer_tokens (0: no sample), remember (answers), needed (answers for a percentile),
-- keep_seconds (of the mark), days.

if redis.call("EXISTS", SETTLED) == 1 then
  redis.call("DEL", RESERVATION) -- of a mark that came back without the deletion
  return false
end
local stored = redis.call("GETDEL", RESERVATION)
redis.call("SET", SETTLED, "", "EX", args.keep_seconds)
local record = stored and cjson.decode(stored) or charge_anew(day_of(args.days), args.charge)

-- What was not used goes back to where it was charged, the latest extension first; what was used beyond the
-- reservation is added to the latest part.
local corrections = {}
local function correct(part, amount)
  local at, _, resets, generations = unpack(part)
  corrections[#corrections + 1] = { at = at, amount = amount, resets = resets, generations = generations }
end
local unused = record.tokens - args.charge
if unused < 0 then
  correct(record.parts[#record.parts], -unused)
end
for i = #record.parts, 1, -1 do
  local part_tokens = record.parts[i][2]
  local back = math.min(unused, part_tokens)
  if back > 0 then
    correct(record.parts[i], -back)
    unused = unused - back
  end
end

local scopes = {}
for n, name in ipairs(SCOPES) do
  redis.call("ZREM", KEYS_OF[name].leases, args.id)
  local scope, spent = read_scope(name, record.day), 0
  local window = scope.window
  for i = 1, #corrections do
    local part = corrections[i]
    if part.resets[n] == scope.resets then -- else it was forgiven with all the rest
      spent = spent + part.amount
      if part.at >= window.oldest and part.generations[n] == window.generation and not window.all_stale then
        redis.call("HINCRBY", window.key, "t" .. part.at, part.amount)
        redis.call("HINCRBY", window.key, "T", part.amount)
        window.tokens = window.tokens + part.amount
      end
    end
  end
  if spent ~= 0 then
    spend_day(scope, record.day, spent)
  end
  scopes[name] = scope
end

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
