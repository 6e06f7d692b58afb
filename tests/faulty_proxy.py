"""A real HTTP proxy on loopback that injects faults by a script: one word per request, then it lets everything pass.

pass        the server's own answer
slow        the same, after a while
429         refused, with Retry-After in seconds; 429_date: with a date
500, 503    a failure of the server; 408: its time-out
400, 401    refusals that stand
malformed   the server's answer, cut in its middle, as a whole body
no_choices  a body without choices; html: one that is no JSON; null: a choice without a message
error_body  status 200 with an error in the body
cut         the connection ends within the body
disconnect  the connection is reset before any answer
hang        nothing is answered until the client gives up
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STATUSES = {"429": 429, "429_date": 429, "500": 500, "503": 503, "408": 408, "400": 400, "401": 401}
BODIES = {
    "no_choices": b'{"choices": []}',
    "html": b"<html>busy</html>",
    "null": b'{"choices": [null]}',
    "error_body": b'{"error": {"message": "the model is loading"}}',
}
FAULTS = (*STATUSES, *BODIES, "malformed", "cut", "disconnect", "hang")


class FaultyProxy:
    """Counts the requests that came (`requests`), what was done to them (`done`); keeps their bodies and headers."""

    def __init__(
        self, upstream: str, script: Sequence[str], *, is_cycled: bool, slow_seconds: float, retry_after: float
    ) -> None:
        self.upstream, self._script, self._is_cycled = upstream, tuple(script), is_cycled
        self.slow_seconds, self.retry_after = slow_seconds, retry_after
        self.done: Counter[str] = Counter()
        self.bodies: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.ends = threading.Event()
        self._lock = threading.Lock()
        self.url = ""

    @property
    def requests(self) -> int:
        return sum(self.done.values())

    @property
    def faults(self) -> Counter[str]:
        return Counter({name: count for name, count in self.done.items() if name in FAULTS})

    def next_word(self, body: bytes, headers: dict[str, str]) -> str:
        with self._lock:
            number = self.requests
            left = self._script if not self._is_cycled else (self._script[number % len(self._script)],)
            word = left[0] if self._is_cycled else left[number] if number < len(left) else "pass"
            self.done[word] += 1
            self.bodies.append(json.loads(body) if body else {})
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return word


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            word = proxy.next_word(body, {name.lower(): value for name, value in self.headers.items()})
            self.close_connection = True
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                self._answer(word, body)

        def _answer(self, word: str, body: bytes) -> None:
            if word in STATUSES:
                headers = {}
                if word == "429":
                    headers["Retry-After"] = f"{proxy.retry_after:g}"
                elif word == "429_date":
                    headers["Retry-After"] = formatdate(time.time() + proxy.retry_after, usegmt=True)
                said = {"error": {"message": f"refused; your key was {self.headers.get('Authorization')}"}}
                self._send(STATUSES[word], json.dumps(said).encode(), headers)
            elif word in BODIES:
                self._send(200, BODIES[word], {})
            elif word == "disconnect":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            elif word == "hang":
                proxy.ends.wait(30)
            else:
                if word == "slow":
                    proxy.ends.wait(proxy.slow_seconds)
                status, answer = self._upstream(body)
                if word == "malformed":
                    answer = answer[: len(answer) // 2]
                if word == "cut":
                    self._send(status, answer[: len(answer) // 2], {}, length=len(answer))
                else:
                    self._send(status, answer, {})

        def _upstream(self, body: bytes) -> tuple[int, bytes]:
            where = urlsplit(proxy.upstream)
            connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=300)
            with_key = {"Content-Type": "application/json"}
            connection.request("POST", where.path.rstrip("/") + self.path.removeprefix("/v1"), body, with_key)
            answer = connection.getresponse()
            try:
                return answer.status, answer.read()
            finally:
                connection.close()

        def _send(self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        pass  # a connection that we reset ourselves


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on a free port of loopback; its address."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def faulty_proxy(
    upstream: str,
    script: Sequence[str] = (),
    *,
    is_cycled: bool = False,
    slow_seconds: float = 0.2,
    retry_after: float = 1.0,
) -> Iterator[FaultyProxy]:
    """A proxy in front of `upstream` (a url that ends with /v1), for as long as the block lasts."""
    proxy = FaultyProxy(upstream, script, is_cycled=is_cycled, slow_seconds=slow_seconds, retry_after=retry_after)
    with served(_handler(proxy)) as url:
        proxy.url = url
        try:
            yield proxy
        finally:
            proxy.ends.set()
