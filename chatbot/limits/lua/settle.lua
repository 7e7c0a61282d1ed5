-- ARGV 2 id, 3 tokens charged, 4 answer tokens (0: no sample), 5 answers to remember, 6 fewest for a percentile.
-- GETDEL makes it once: whoever comes second finds no reservation and changes nothing.

local id, used, sample = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = redis.call("GETDEL", RESERVATION)
if not stored then
  return "0"
end
local record = cjson.decode(stored)

-- What was not used goes back to where it was charged, the latest extension first; what was used beyond the
-- reservation is added to the latest part.
local corrections = {}
local function correct(part, amount)
  local at, _, resets, generations = unpack(part)
  corrections[#corrections + 1] = { at = at, amount = amount, resets = resets, generations = generations }
end
local unused = record.tokens - used
if unused < 0 then
  correct(record.parts[#record.parts], -unused)
end
for i = #record.parts, 1, -1 do
  local back = math.min(unused, record.parts[i][2])
  if back > 0 then
    correct(record.parts[i], -back)
    unused = unused - back
  end
end

local scopes = {}
for n = 1, SCOPES do
  redis.call("ZREM", KEYS[(n - 1) * 3 + 3], id)
  local scope, spent = read_scope(n, record.day), 0
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
  scopes[n] = scope
end

if sample > 0 then
  local keep = tonumber(ARGV[5])
  redis.call("LPUSH", ANSWERS, sample)
  redis.call("LTRIM", ANSWERS, 0, keep - 1)
  redis.call("EXPIRE", ANSWERS, 30 * 86400)
  local answers = redis.call("LRANGE", ANSWERS, 0, -1)
  if #answers >= tonumber(ARGV[6]) then
    for i = 1, #answers do
      answers[i] = tonumber(answers[i])
    end
    table.sort(answers)
    redis.call("SET", PERCENTILE, answers[math.ceil(0.95 * #answers)], "EX", 30 * 86400)
  end
end
return report(scopes)
