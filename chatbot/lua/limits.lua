-- ARGV 2 today, 3 its end (µs), 4 tomorrow, 5 its end. Reads only.

local day = ARGV[2]
if now >= tonumber(ARGV[3]) then
  day = ARGV[4]
end
local scopes = {}
for n = 1, SCOPES do
  scopes[n] = read_scope(n, day)
end
return report(scopes)
