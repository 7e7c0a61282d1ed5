"""A Python interpreter with preloaded imports; each program runs in a fork of it, without importing again."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Arguments: the path of its socket, and its import statements. A client sends three files and a JSON command.
_SERVER = """
import gc, json, os, runpy, socket, sys, traceback

def run(how, what, *rest):
    try:
        sys.argv = [how, *rest]
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, int | None):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

exec(sys.argv[2])
gc.freeze()
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
    listener.bind(sys.argv[1])
    listener.listen(16)
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        message, files, _, _ = socket.recv_fds(client, 1 << 17, 3)
        if not message:
            break
        if os.fork() == 0:
            for number, file in enumerate(files):
                os.dup2(file, number)
            asked = json.loads(message)
            os.environ.clear()
            os.environ.update(asked["environment"])
            os.chdir(asked["folder"])
            status = run(*asked["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
            client.send(b"%d" % status)
            os._exit(status)
        for file in (client.detach(), *files):
            os.close(file)
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""
_CLIENT = """#!{python} -ISE
import json, os, socket, sys
asked = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    sys.exit(int(server.recv(16) or b"70"))
"""


@contextmanager
def warm_interpreter(python: Path, imports: str, folder: Path) -> Iterator[Path]:
    """Start an interpreter, and yield a program that runs `-c CODE …` and `-m MODULE …` in forks of it.

    Signals to the program do not reach the fork.
    """
    address, program = str(folder / "socket"), folder / "python"
    program.write_text(_CLIENT.format(python=sys.executable, address=address), "utf-8")
    program.chmod(0o755)
    command = [str(python), "-c", _SERVER, address, imports]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield program
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
                last.connect(address)
            process.wait(60)
        finally:
            process.kill()
