"""Apply the changes of tests/mutants one by one, and print those that no test notices (`make mutants`).

usage: scripts/mutants.py PATCH...

Each change is applied to a copy of the checkout, where the tests of its room run. The exit status is 1 if the tests
notice less than 85 % of the changes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIRED_SHARE = 0.85


def first_failure(copy: Path, room: Path) -> str:
    """Return the first test of a room that fails or times out; empty if all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--patience", "4", f"tests/{room}"]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: TID251  the tests' own
    finished = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if finished.returncode == 0:
        return ""
    failures = [line.split(" - ")[0] for line in finished.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failures[0] if failures else finished.stdout[-300:]


def outcome(patch: str, copy: Path) -> str | None:
    """Return the first failing test under a change; empty if all pass, None if the patch does not apply."""
    file = Path(patch.split("\n", 1)[0].removeprefix("--- a/"))
    original = (copy / file).read_bytes()
    applied = subprocess.run(["git", "apply", "-"], cwd=copy, input=patch, text=True, check=False)  # noqa: S607
    if applied.returncode != 0:
        return None
    failure = first_failure(copy, file.parent)
    (copy / file).write_bytes(original)
    return failure


def main(patches: list[Path]) -> int:
    """Try the changes, record the tests that notice them in noticed.json, and return the exit status."""
    noticed: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # PostgreSQL is another user
        copy = Path(name) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", ".data", ".*_cache"), symlinks=True)
        (copy / ".venv").symlink_to(ROOT / ".venv")  # has the identity provider of the tests
        for patch in patches:
            text = patch.read_text("utf-8")
            failure = outcome(text, copy)
            noticed[patch.name] = failure
            result = "does not apply" if failure is None else failure
            if failure == "":
                result = f"NOT NOTICED\n{text}"
            print(f"{patch.name}: {result}", flush=True)
            (patch.parent / "noticed.json").write_text(json.dumps(noticed, indent=1) + "\n", "utf-8")
    tried = [failure for failure in noticed.values() if failure is not None]
    share = sum(map(bool, tried)) / max(1, len(tried))
    print(f"{share:.1%} of {len(tried)} noticed, {len(noticed) - len(tried)} do not apply")
    return 0 if share >= REQUIRED_SHARE else 1


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
