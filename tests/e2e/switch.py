"""One address in front of two servers, like the virtual address of a primary and its replica."""

import shutil
import socket
import subprocess
from pathlib import Path

from tests.conftest import free_port

PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin"
HAPROXY = """
global
  maxconn 4000
  stats socket {stats} mode 600 level admin
defaults
  mode tcp
  timeout connect 1s
  timeout client 1h
  timeout server 1h
frontend address
  bind 127.0.0.1:{port}
  default_backend servers
backend servers
  server server-0 {first}
  server server-1 {second} disabled
"""


class Switch:
    """HAProxy in front of two servers; it routes to the first until a test switches it."""

    def __init__(self, first: str, second: str, folder: Path, name: str) -> None:
        """The servers are `host:port`, or `unix@` and a socket's path; `name` is the stem of HAProxy's files."""
        self.port = free_port()
        self._stats = folder / f"{name}.sock"
        config = folder / f"{name}.cfg"
        config.write_text(HAPROXY.format(stats=self._stats, port=self.port, first=first, second=second), "utf-8")
        command = [shutil.which("haproxy", path=PATHS) or "haproxy", "-db", "-f", str(config)]
        with (folder / f"{name}.log").open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, process_group=0)  # noqa: S603

    def hide(self, n: int) -> None:
        """Stop routing to a server, and close its connections."""
        self._tell(f"set server servers/server-{n} state maint")
        self._tell(f"shutdown sessions server servers/server-{n}")

    def lead_to(self, n: int) -> None:
        """Route new connections to a server."""
        self._tell(f"set server servers/server-{n} state ready")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _tell(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self._stats))
            asking.sendall(f"{command}\n".encode())
            asking.recv(65536)
