"""A server of scripted JSON replies, in place of a service or of the cluster's API server."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def scripted_replies(replies: Mapping[str, tuple[int, object]]) -> Iterator[str]:
    """Run a server that replies to each path with its (status, JSON body), else with 404; yield its URL."""

    class Replies(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            failure = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            status, body = replies.get(self.path.partition("?")[0], (404, failure))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Replies) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
