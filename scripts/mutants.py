"""Try the kept changes of tests/mutants, and print those that no test notices (`make mutants`).

usage: scripts/mutants.py PATCH...

Each change is applied to a copy of the checkout, where the tests of its room run. Ends with 1 below 90 % noticed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIRED_SHARE = 0.9


def first_failure(copy: Path, room: Path) -> str:
    """Return the first of a room's tests that fails or times out, empty where none does."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--patience", "4", f"tests/{room}"]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: TID251  the tests' own
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "" if done.returncode == 0 else (failed or [done.stdout[-300:]])[0]


def outcome(patch: str, copy: Path) -> str | None:
    """Return the first failure under a change, empty where none fails; None where the patch does not apply."""
    file = Path(patch.split("\n", 1)[0].removeprefix("--- a/"))
    before = (copy / file).read_bytes()
    if subprocess.run(["git", "apply", "-"], cwd=copy, input=patch, text=True, check=False).returncode:  # noqa: S607
        return None
    failure = first_failure(copy, file.parent)
    (copy / file).write_bytes(before)
    return failure


def main(patches: list[Path]) -> int:
    """Try the changes, and return the exit status."""
    noticed: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # PostgreSQL is another user
        copy = Path(name) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache"), symlinks=True)
        for patch in patches:
            text = patch.read_text("utf-8")
            noticed[patch.name] = failure = outcome(text, copy)
            words = "does not apply" if failure is None else failure or f"NOT NOTICED\n{text}"
            print(f"{patch.name}: {words}", flush=True)
            (patch.parent / "noticed.json").write_text(json.dumps(noticed, indent=1) + "\n", "utf-8")
    tried = [failure for failure in noticed.values() if failure is not None]
    share = sum(map(bool, tried)) / max(1, len(tried))
    print(f"{share:.1%} of {len(tried)} noticed, {len(noticed) - len(tried)} do not apply")
    return 0 if share >= REQUIRED_SHARE else 1


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
