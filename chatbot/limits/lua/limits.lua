-- ARGV 2 today, 3 its end (µs), 4 tomorrow, 5 its end. Reads only.

local day = day_of(ARGV[2], ARGV[3], ARGV[4], ARGV[5])
local scopes = {}
for n = 1, SCOPES do
  scopes[n] = read_scope(n, day)
end
return report(scopes)
