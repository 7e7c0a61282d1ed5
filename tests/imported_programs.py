"""What the fork server imports: the programs, none of whose imports is ever searched for garbage, here or in a fork."""

import gc
from importlib import import_module

PROGRAMS = ("chatbot.__main__", "ingest.__main__", "evals.__main__")

gc.disable()
for program in PROGRAMS:
    import_module(program)
gc.freeze()
gc.enable()
