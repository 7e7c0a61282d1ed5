import subprocess
import sys

from tests.conftest import free_port


def test_a_port_that_one_test_session_was_given_is_refused_to_another() -> None:
    port = free_port()
    asked = f"from tests.conftest import lock_port; print(lock_port({port}))"
    session = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)  # noqa: S603
    assert session.stdout == "False\n"
