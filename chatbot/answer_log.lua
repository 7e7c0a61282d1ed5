-- Appends events to an answer's log, if the writer still owns it.
-- KEYS: the answer's hash, its stream.  ARGV: epoch, seconds to keep, then per event: n, name, data.
-- The stream's ids are 0-<n>: Redis refuses an id that is not larger than the last, so no number is used twice.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 0
end
for i = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[2], '0-' .. ARGV[i], 'name', ARGV[i + 1], 'data', ARGV[i + 2])
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
