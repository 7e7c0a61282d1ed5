"""A loopback server that speaks TLS or plain text to HTTP, Redis and PostgreSQL clients."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator

_POSTGRES_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@contextlib.contextmanager
def peer(tls: ssl.SSLContext | None) -> Iterator[str]:
    """Serve on a free port while the block runs, and yield `host:port`; without a context, in plain text."""

    class Conversation(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # includes ssl.SSLError: the client disconnects or rejects the handshake
                if self.request.recv(8, 2) == _POSTGRES_REQUEST:  # MSG_PEEK
                    self.request.recv(8)
                    self.request.sendall(b"N" if tls is None else b"S")
                if tls is None:
                    self.request.sendall(b"-ERR unknown command\r\n")
                    self.request.recv(4096)
                    return
                with tls.wrap_socket(self.request, server_side=True) as encrypted:
                    encrypted.recv(1)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Conversation) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
