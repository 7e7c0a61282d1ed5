"""What the set-up and the bare root do on machines that lack something."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATH = "/usr/local/bin:/usr/bin:/bin"
INSTALL = re.compile(r"^apt-get install -y ([a-z0-9 .-]+)", re.MULTILINE)


def bash(script: str, environment: Mapping[str, str], *, path: str = PATH) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": path, "HOME": "/nonexistent", **environment}
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  ours


def test_readme_and_workflows_install_the_same_packages() -> None:
    named = INSTALL.search((ROOT / "README.md").read_text("utf-8"))
    assert named is not None
    workflow = (ROOT / ".github/workflows/ci.yaml").read_text("utf-8").partition("  bare:")[2]
    installed = re.search(r"--no-install-recommends ([a-z0-9 .-]+?) >", workflow)
    assert installed is not None
    assert installed[1].split() == named[1].split()


def test_bare_without_root_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    done = bash("scripts/bare true", {}, path=f"{tmp_path}:{PATH}")
    assert done.returncode == 3
    assert "run it as root" in done.stderr


def test_setup_without_libnuma_names_the_package(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\ncase "$2" in *libnuma*) exit 1 ;; esac\nexec python3 "$@"\n')
    python.chmod(0o755)
    done = bash("scripts/setup", {"PYTHON": str(python)})
    assert done.returncode == 1
    assert done.stderr.startswith("setup: vLLM needs libnuma: on Debian or Ubuntu run 'apt-get install libnuma1'")


def test_pip_options_reach_uv() -> None:
    options = {"PIP_INDEX_URL": "https://mirror.example/simple", "PIP_FIND_LINKS": "/wheels", "PIP_CERT": "/ca.pem"}
    script = '. scripts/python_index.sh; use_pip_configuration; echo "$UV_DEFAULT_INDEX $UV_FIND_LINKS $SSL_CERT_FILE"'
    assert bash(script, options).stdout == "https://mirror.example/simple /wheels /ca.pem\n"


def test_uv_options_override_pip_options() -> None:
    options = {"PIP_INDEX_URL": "https://mirror.example/simple", "UV_DEFAULT_INDEX": "https://other.example/simple"}
    script = '. scripts/python_index.sh; use_pip_configuration; echo "$UV_DEFAULT_INDEX"'
    assert bash(script, options).stdout == "https://other.example/simple\n"


def test_torch_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    """An index whose every package installs, and whose torch raises at its import."""
    uv = tmp_path / ".venv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text("#!/bin/sh\nexit 0\n")
    uv.chmod(0o755)
    (tmp_path / "torch.py").write_text("raise ImportError('libcublasLt.so')")
    script = f'. scripts/python_index.sh; cd "{tmp_path}"; install_torch python3 torch.in'
    done = bash(script, {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "libcublasLt.so" in done.stderr
