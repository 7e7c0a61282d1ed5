-- Returns the state; reads only.
-- Arguments: days.

return report(read_scopes(day_of(args.days).name))
