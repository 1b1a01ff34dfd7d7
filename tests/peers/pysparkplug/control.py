"""The control port of these peers: a JSON object a line, each answered by one."""

import json
import socketserver
from collections.abc import Callable
from typing import Any


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def serve(port: int, request: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer for ever."""

    class Control(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                try:
                    answer = request(json.loads(line))
                except Exception as error:  # noqa: BLE001  # the test shows it
                    answer = {"error": repr(error)}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    _Server(("127.0.0.1", port), Control).serve_forever()
