"""A TCP proxy in front of PostgreSQL that holds a session in the middle of its work, or cuts them all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsteward.postgres import Login

WAIT_S = 60.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class Hold:
    """Where a session is held.

    Attributes:
        name: Its ``application_name``; where any may be held, the one that was.
        asked: Held before a message with this in it reaches the server.
        answered: Rather, after so many bytes of the answer to it.
        passing: So many such messages are let through before.
        after: Only once a message with this in it has passed.
        held: Set when it is.
        go_on: To be set to let it go on.
    """

    name: str
    asked: bytes
    answered: int | None = None
    passing: int = 0
    after: bytes = b""
    held: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Hold the calling thread until it may go on."""
        self.held.set()
        self.go_on.wait(WAIT_S)

    def wait(self) -> None:
        assert self.held.wait(WAIT_S), f"{self.name} never came to where it is to be held"


@dataclass(slots=True)
class _Session:
    name: str | None = None
    passed: int = 0
    due: tuple[int, Hold] | None = None
    held: bool = False


class Proxy:
    """Passes bytes on between sessions and one server.

    Attributes:
        login: The server's, by way of the proxy.
        port: Where it listens.
        messages: So many pieces went to the server: mostly one a message.
    """

    def __init__(self, login: Login) -> None:
        parts = conninfo_to_dict(login.conninfo)
        self._server = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._holds: list[Hold] = []
        self._numbered: dict[int, Hold] = {}
        self._counting = threading.Lock()
        self._ends: list[socket.socket] = []
        self._cut: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.messages = 0
        self.port: int = self._listener.getsockname()[1]
        self.login = Login(make_conninfo(login.conninfo, host="127.0.0.1", port=self.port), login.password)
        self._start(self._accept)

    def hold(
        self, name: str, *, asked: bytes, answered: int | None = None, passing: int = 0, after: bytes = b""
    ) -> Hold:
        """Hold every session of this name at a point; see `Hold`."""
        hold = Hold(name, asked, answered, passing, after)
        self._holds.append(hold)
        return hold

    def hold_at(self, number: int) -> Hold:
        """Hold whichever session sends the message of this number to the server; see `messages`."""
        hold = self._numbered[number] = Hold("", b"")
        return hold

    def cut(self) -> None:
        """Reset every connection on both sides, as a firewall does that has forgotten them."""
        ends, self._ends = self._ends, []
        self._cut.update(ends)
        for end in ends:
            _reset(end)
        for hold in (*self._holds, *self._numbered.values()):
            hold.go_on.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            try:
                server.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16
                )  # what is held is not here yet
                server.connect(self._server)
            except OSError:  # the server is down: so are we
                server.close()
                client.close()
                continue
            self._ends += [client, server]
            session = _Session()
            self._start(self._to_server, client, server, session)
            self._start(self._to_client, server, client, session)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self, of: socket.socket) -> None:
        """Pass on that one side has ended, unless that was us."""
        if of not in self._cut:
            with contextlib.suppress(OSError):
                of.shutdown(socket.SHUT_WR)

    def _to_server(self, client: socket.socket, server: socket.socket, session: _Session) -> None:
        greeting = b""
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if session.name is None:
                    greeting += data
                    _, found, rest = greeting.partition(b"application_name\0")
                    session.name = rest.partition(b"\0")[0].decode() if found else None
                for hold in self._holds:
                    if session.name != hold.name:
                        continue
                    if hold.after:
                        hold.after = b"" if hold.after in data else hold.after
                    elif hold.asked in data:
                        if hold.passing > 0:
                            hold.passing -= 1
                        elif hold.answered is None:
                            hold.stop()
                        else:
                            session.due = (session.passed + hold.answered, hold)
                with self._counting:
                    self.messages += 1
                    numbered = self._numbered.pop(self.messages, None)
                if numbered is not None:
                    numbered.name = session.name or "a greeting"
                    numbered.stop()
                server.sendall(data)
        if session.held:  # the server could not send what nobody reads, and would never notice
            _reset(server)
        else:
            self._end(server)

    def _to_client(self, server: socket.socket, client: socket.socket, session: _Session) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                session.passed += len(data)
                if session.due is not None and session.passed >= session.due[0]:
                    session.held = True
                    session.due[1].stop()
                    session.held = False
                try:
                    client.sendall(data)
                except OSError:  # it is dead: so it is for the server, too
                    _reset(server)
                    raise
        self._end(client)


def _reset(end: socket.socket) -> None:
    """Close one side as the kernel does for a process that dies with unread data."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):  # wakes who reads; says nothing to the other side
        end.shutdown(socket.SHUT_RD)
    end.close()


@contextlib.contextmanager
def through_proxy(login: Login) -> Iterator[Proxy]:
    """Run a proxy for a while."""
    proxy = Proxy(login)
    try:
        yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def striking(hold: Hold, blow: Callable[[], object]) -> Iterator[None]:
    """Strike as soon as a session is held, while the block works, and let it go on."""
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            hold.wait()
            blow()
        except BaseException as exc:
            trouble.append(exc)
        finally:
            hold.go_on.set()

    striker = threading.Thread(target=run)
    striker.start()
    try:
        yield
    finally:
        striker.join(WAIT_S)
        assert not trouble, trouble
