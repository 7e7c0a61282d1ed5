-- Returns the state, after returning the tokens that dead processes had reserved.
-- Arguments: days.

give_back_lapsed()
return report(read_scopes(day_of(args.days).name))
