"""An S3 endpoint with faults: requests are passed on to a real one, but for those that a rule strikes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}


@dataclass(slots=True)
class Request:
    """What has arrived.

    Attributes:
        key: Of the object, with the bucket.
        query: Of the URL; a flag like ``uploads`` has an empty value.
        headers: Names in lower case.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    path_and_query: str

    @property
    def key(self) -> str:
        return unquote(self.path.lstrip("/"))

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber" in self.query

    @property
    def is_put(self) -> bool:
        """True for content: a whole object, or a part."""
        return self.method == "PUT" and not (set(self.query) - {"partNumber", "uploadId", "x-id"})

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and "list-type" in self.query

    @property
    def is_get(self) -> bool:
        return self.method == "GET" and not (set(self.query) - {"versionId", "x-id"}) and "/" in self.key

    @property
    def is_probe(self) -> bool:
        return "selftest" in self.path or "selftest" in self.query.get("prefix", "")


@dataclass(slots=True)
class Answer:
    """What goes back.

    Attributes:
        slow_s: Pause before each quarter of the body.
        cut_after: Close the connection after so many bytes of the body.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    slow_s: float = 0.0
    cut_after: int | None = None


Pass = Callable[[Request], Answer]
Fault = Callable[[Request, Pass], Answer | None]
"""Answers a request, with the help of the real endpoint; None closes the connection without a word."""


def no_fault(request: Request, real: Pass) -> Answer:
    return real(request)


def error(status: int, code: str, message: str = "injected") -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml"}, body.encode())


class Proxy:
    """One endpoint; set `fault` at any time. `seen` has method, key and query of all requests."""

    def __init__(self, upstream: str, tls: tuple[Path, Path] | None = None) -> None:
        self.upstream = urlsplit(upstream)
        self.fault: Fault = no_fault
        self.seen: list[Request] = []
        self.struck = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._handle(self)

            def handle_expect_100(self) -> bool:
                return getattr(proxy.fault, "before_body", False) or super().handle_expect_100()

            do_PUT = do_POST = do_DELETE = do_HEAD = do_CONNECT = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that goes away is part of the game

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self.url = f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def real(self, request: Request) -> Answer:
        """Ask the real endpoint."""
        assert self.upstream.hostname is not None
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port or 80, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k not in HOP | {"content-length"}}
            connection.putrequest(
                request.method, request.path_and_query, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            answer = connection.getresponse()
            return Answer(
                answer.status,
                {k: v for k, v in answer.getheaders() if k.lower() not in HOP},
                answer.read(),
            )
        finally:
            connection.close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Incoming(handler.command, parts.path, query, headers, b"", handler.path, handler)
        self.seen.append(request)
        if not getattr(self.fault, "before_body", False):
            request.take_body()
        answer = self.fault(request, self.real)
        if answer is None:
            self.struck += 1
            reset(handler)
            return
        handler.send_response_only(answer.status)
        length = answer.headers.get("Content-Length") if request.method == "HEAD" else None
        for name, value in answer.headers.items():
            if name.lower() != "content-length":
                handler.send_header(name, value)
        if "Date" not in answer.headers:
            handler.send_header("Date", handler.date_time_string())
        handler.send_header("Content-Length", length or str(len(answer.body)))
        handler.end_headers()
        if request.method == "HEAD":
            return
        if answer.cut_after is not None:
            handler.wfile.write(answer.body[: answer.cut_after])
            reset(handler)
            return
        quarter = max(1, -(-len(answer.body) // 4))
        for start in range(0, len(answer.body), quarter) if answer.slow_s else ():
            time.sleep(answer.slow_s)
            handler.wfile.write(answer.body[start : start + quarter])
            handler.wfile.flush()
        if not answer.slow_s:
            handler.wfile.write(answer.body)
        if request.owed:
            handler.wfile.flush()
            handler.rfile.read(request.owed)


@dataclass(slots=True)
class Incoming(Request):
    """A request whose body may still be on its way.

    Attributes:
        owed: Bytes of the body to be read off the connection after the answer.
    """

    handler: BaseHTTPRequestHandler
    owed: int = 0

    def go_on(self) -> None:
        """Let the client send the body, and take it."""
        if "expect" in self.headers:
            self.handler.send_response_only(100)
            self.handler.end_headers()
        self.take_body()

    def take_body(self) -> None:
        source = self.handler.rfile
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            self.body = source.read(int(self.headers.get("content-length", 0)))
            return
        while size := int(source.readline().split(b";")[0], 16):
            self.body += source.read(size)
            source.readline()
        source.readline()


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Close a connection in the rudest way there is."""
    with contextlib.suppress(OSError):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.connection.close()


# Faults


def first(count: int, concerns: Callable[[Request], bool], strike: Fault) -> Fault:
    """Strike only the first so many requests of a kind."""
    lock = threading.Lock()
    left = count

    def fault(request: Request, real: Pass) -> Answer | None:
        nonlocal left
        with lock:
            hit = left > 0 and concerns(request)
            left -= hit
        return strike(request, real) if hit else real(request)

    return fault


def always(concerns: Callable[[Request], bool], strike: Fault) -> Fault:
    return first(1 << 30, concerns, strike)


def answering(status: int, code: str) -> Fault:
    return lambda request, real: error(status, code)


def refusing_first(count: int) -> Fault:
    """Refuse PUTs before their body is sent, as a proxy does that limits the rate, and wait for it then."""
    left = count

    def fault(request: Request, real: Pass) -> Answer:
        nonlocal left
        assert isinstance(request, Incoming)
        if request.method != "PUT" or not left:
            request.go_on()
            return real(request)
        left -= 1
        request.owed = int(request.headers["content-length"])
        return Answer(429, {"Content-Type": "text/html"}, b"<h1>Too many requests")

    fault.before_body = True  # type: ignore[attr-defined]
    return fault


def refusing_larger(size_bytes: int) -> Fault:
    """Refuse what is too large by its head, as a proxy does, before its content is sent."""

    def fault(request: Request, real: Pass) -> Answer:
        assert isinstance(request, Incoming)
        if int(request.headers.get("content-length", 0)) > size_bytes:
            request.handler.close_connection = True
            return Answer(413, {"Content-Type": "text/html"}, b"<h1>Request Entity Too Large")
        request.go_on()
        if len(request.body) > size_bytes:  # which its head does not say, where it comes in chunks
            request.handler.close_connection = True
            return Answer(413, {"Content-Type": "text/html"}, b"<h1>Request Entity Too Large")
        return real(request)

    fault.before_body = True  # type: ignore[attr-defined]
    return fault


def unanswered(request: Request, real: Pass) -> Answer | None:
    """Do it, and break off before a word is said."""
    real(request)
    return None


def half_then_reset(request: Request, real: Pass) -> Answer | None:
    """Break off in the middle of the body that comes, or that goes."""
    if request.method == "PUT":
        return None
    answer = real(request)
    return Answer(answer.status, answer.headers, answer.body, cut_after=len(answer.body) // 2)


def flipping(request: Request, real: Pass) -> Answer:
    """Give back one other byte than was put."""
    answer = real(request)
    if answer.body and answer.status in (200, 206):
        middle = len(answer.body) // 2
        answer.body = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
    return answer


def without_headers(*beginnings: str) -> Fault:
    """Drop headers of requests and answers: what they ask for is ignored."""

    def fault(request: Request, real: Pass) -> Answer:
        request.headers = {k: v for k, v in request.headers.items() if not k.startswith(beginnings)}
        answer = real(request)
        answer.headers = {k: v for k, v in answer.headers.items() if not k.lower().startswith(beginnings)}
        return answer

    return fault


def skewed(seconds: float) -> Fault:
    def fault(request: Request, real: Pass) -> Answer:
        answer = real(request)
        for name in [name for name in answer.headers if name.lower() == "date"]:
            del answer.headers[name]
        answer.headers["Date"] = _date(time.time() + seconds)
        return answer

    return fault


def refusing_skewed(seconds: float) -> Fault:
    def fault(request: Request, real: Pass) -> Answer:
        answer = error(403, "RequestTimeTooSkewed")
        answer.headers["Date"] = _date(time.time() + seconds)
        return answer

    return fault


def _date(at: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))


def listing_late(seconds: float) -> Fault:
    """Show a new object in listings only after a while."""
    put: dict[str, float] = {}

    def fault(request: Request, real: Pass) -> Answer:
        answer = real(request)
        if request.is_put or (request.method == "POST" and "uploadId" in request.query):
            put[request.key.partition("/")[2]] = time.monotonic()
        if request.is_list:
            late = {key for key, at in put.items() if time.monotonic() - at < seconds}

            def shown(match: re.Match[str]) -> str:
                key = re.search(r"<Key>(.*?)</Key>", match[0])
                return "" if key and unquote(key[1]) in late else match[0]

            answer.body = re.sub(
                r"<Contents>.*?</Contents>", shown, answer.body.decode(), flags=re.DOTALL
            ).encode()
        return answer

    return fault


def honouring_checksums() -> Fault:
    """A store as S3 itself: refuses what does not fit its SHA-256, and tells its own of what it has."""
    parts: dict[str, dict[int, bytes]] = {}
    whole: dict[str, str] = {}
    lock = threading.Lock()

    def fault(request: Request, real: Pass) -> Answer:
        told = request.headers.get("x-amz-checksum-sha256")
        digest = hashlib.sha256(request.body).digest()
        if told is not None and told != base64.b64encode(digest).decode():
            return error(400, "BadDigest", "The SHA256 you specified did not match what we received")
        answer = real(request)
        if answer.status != 200:
            return answer
        with lock:
            if request.is_part:
                parts.setdefault(request.query["uploadId"], {})[int(request.query["partNumber"])] = digest
            elif request.is_put and told is not None:
                whole[request.path] = told
            elif request.method == "POST" and "uploadId" in request.query:
                digests = [d for _, d in sorted(parts.pop(request.query["uploadId"], {}).items())]
                sums = hashlib.sha256(b"".join(digests)).digest()
                whole[request.path] = f"{base64.b64encode(sums).decode()}-{len(digests)}"
            elif request.method == "HEAD":
                answer.headers = {
                    k: v for k, v in answer.headers.items() if k.lower() != "x-amz-checksum-sha256"
                }
                if request.path in whole:
                    answer.headers["x-amz-checksum-sha256"] = whole[request.path]
        return answer

    return fault


def trailers_into_the_object(request: Request, real: Pass) -> Answer:
    """Store an aws-chunked body as it comes, marks and trailer and all."""
    if "x-amz-trailer" in request.headers:
        for name in ("content-encoding", "x-amz-trailer", "x-amz-decoded-content-length"):
            request.headers.pop(name, None)
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    return real(request)
