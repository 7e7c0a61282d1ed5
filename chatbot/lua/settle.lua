-- ARGV 2 id, 3 tokens used, 4 answer tokens (0: no sample), 5 answers to remember, 6 fewest for a percentile.
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
local unused = record.tokens - used
if unused < 0 then
  corrections[1] = { record.parts[#record.parts][1], -unused }
end
for i = #record.parts, 1, -1 do
  local back = math.min(unused, record.parts[i][2])
  if back > 0 then
    corrections[#corrections + 1] = { record.parts[i][1], -back }
    unused = unused - back
  end
end

local scopes = {}
for n = 1, SCOPES do
  local first = (n - 1) * 3
  for i = 1, #corrections do
    local at, amount = corrections[i][1], corrections[i][2]
    if at + SPAN > second then -- an older bucket has left the window already
      redis.call("HINCRBY", KEYS[first + 1], "t" .. at, amount)
      redis.call("HINCRBY", KEYS[first + 1], "T", amount)
    end
  end
  redis.call("ZREM", KEYS[first + 3], id)
  scopes[n] = read_scope(n, record.day)
  spend_day(scopes[n], record.day, used - record.tokens)
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
