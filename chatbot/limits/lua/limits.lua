-- Returns the state; writes only what dead processes left reserved.
-- Arguments: days.

give_back_lapsed()
return report(read_scopes(day_of(args.days).name))
