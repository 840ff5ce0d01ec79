"""A proxy in front of an S3 service that fails on chosen requests, and keeps a list of all of them."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

#: Error codes of S3 with the status they come with.
STATUS = {
    "InternalError": 500,
    "SlowDown": 503,
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "ExpiredToken": 400,
}


@dataclass
class Fault:
    """What happens to requests.

    Attributes
    ----------
    kind
        ``error`` answers with the S3 error ``code``; ``reset`` closes the connection without an answer; ``hang`` gives
        none for ``seconds``; ``slow`` answers after ``seconds``; ``short`` closes it after half of the body;
        ``truncated`` passes off half of the body as all of it.
    request
        Regular expression, searched for in ``METHOD /path?query``.
    times
        How many requests; None for all.
    """

    kind: Literal["error", "reset", "hang", "slow", "short", "truncated"]
    request: str
    times: int | None = None
    code: str = "InternalError"
    seconds: float = 1.0


@dataclass
class Proxy:
    """The proxy's address, what it is to do, and what it was asked."""

    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, request: str) -> Fault | None:
        """Note a request; gives the first fault that is meant for it."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if re.search(fault.request, request) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def count(self, request: str) -> int:
        """How many requests match."""
        return sum(bool(re.search(request, made)) for made in self.requests)


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[Proxy]:
    """Run a proxy to the S3 service at ``endpoint``."""
    upstream = urlsplit(endpoint).netloc
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_for(f"{self.command} {self.path}")
            if fault is not None and fault.kind in ("hang", "slow"):
                time.sleep(fault.seconds)
            if fault is not None and fault.kind in ("hang", "reset"):
                self.close_connection = True
                return
            if fault is not None and fault.kind == "error":
                content = f"<Error><Code>{fault.code}</Code><Message>planned</Message></Error>".encode()
                self.answer(STATUS[fault.code], {"Content-Type": "application/xml"}, content, len(content))
                return
            connection = http.client.HTTPConnection(upstream)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content, length = response.read(), int(response.headers.get("Content-Length", 0))
            connection.close()
            if fault is not None and fault.kind in ("short", "truncated"):
                content = content[: len(content) // 2]
                self.close_connection = True
                length = len(content) if fault.kind == "truncated" else length
            hidden = ("content-length", "connection", "transfer-encoding", "x-amz-checksum-crc32", "etag")
            kept = {name: value for name, value in response.headers.items() if name.lower() not in hidden}
            self.answer(response.status, kept, content, length)

        def answer(self, status: int, headers: dict[str, str], content: bytes, length: int) -> None:
            with suppress(ConnectionError):  # who asked may have given up
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
