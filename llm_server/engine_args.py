"""Checks a profile's arguments with vLLM's own parser, without loading a model."""

import json
import subprocess
from pathlib import Path

from llm_server.launch import CannotServe, ServeSettings, command
from llm_server.profile import Profile

_SECONDS = 300.0
"""Importing vLLM takes 20 s on two cores, and more on a busy machine."""
PARSER = """
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args
except ModuleNotFoundError:  # of 0.32, which the CPU build still is
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
"""
"""Imports vLLM's parser of `vllm serve` arguments, from either of the two pinned releases."""
_PARSE = f"""
import json, sys
{PARSER}
from vllm.utils.argparse_utils import FlexibleArgumentParser
args = make_arg_parser(FlexibleArgumentParser()).parse_args(json.loads(sys.argv[1]))
validate_parsed_serve_args(args)
"""


def check_engine_args(profile: Profile, python: Path) -> None:
    """Check that an interpreter's vLLM accepts the profile's arguments.

    Raises:
        CannotServe: vLLM rejects them, with its message, or the interpreter has no vLLM.
    """
    model = profile.hub.name if profile.hub else profile.name
    arguments = command(ServeSettings(profile=profile, model=model, python=python, log_file=None))
    parsing = [str(python), "-c", _PARSE, json.dumps(arguments[arguments.index("serve") + 1 :])]
    try:
        done = subprocess.run(parsing, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603  ours
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotServe(f"The arguments of {profile.name} cannot be checked with {python}: {exc}") from exc
    if done.returncode == 0:
        return
    printed_lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
    if any("No module named 'vllm'" in line for line in printed_lines):
        raise CannotServe(
            f"{python} has no vLLM to check the arguments of {profile.name} with: run scripts/setup, or set LLM_PYTHON."
        )
    reason = printed_lines[-1].partition("error: ")[2] or printed_lines[-1]
    raise CannotServe(f"vLLM refuses the arguments of {profile.name}: {reason.strip()}")
