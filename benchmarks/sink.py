"""A local HTTP server that takes whatever trackers send and notes which orders it saw.

It looks for ``order-<number>`` in the bodies and parses nothing, so that it costs all peers the
same. ``GET /seen`` tells what came since the last ``DELETE /seen``.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ORDER = re.compile(rb"order-(\d+)")


class Sink(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.lock = threading.Lock()
        self.seen: Counter[bytes] = Counter()
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        found = _ORDER.findall(body)
        with self.server.lock:
            self.server.seen.update(found)
            self.server.requests += 1
        self.answer({})

    def do_GET(self) -> None:
        sink = self.server
        with sink.lock:
            twice = sum(count > 1 for count in sink.seen.values())
            self.answer({"orders": len(sink.seen), "twice": twice, "requests": sink.requests})

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.seen.clear()
            self.server.requests = 0
        self.answer({})

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    sink = Sink(int(sys.argv[1]))
    print(sink.server_port, flush=True)
    sink.serve_forever()
