"""The demo's PostgreSQL and S3 are real, private, and leave nothing behind, root or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from pgsteward.children import Children
from pgsteward.demo.s3 import LocalS3
from pgsteward.demo.server import EmbeddedPostgres
from pgsteward.errors import PreconditionError, ToolFailed
from pgsteward.postgres import Login, connect
from tests.servers import Bucket

pytestmark = pytest.mark.any_server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused by PostgreSQL")


@pytest.fixture
def children() -> Iterator[Children]:
    with Children() as family:
        yield family


def command_lines() -> str:
    """Return the arguments of every process of this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def client(s3: LocalS3, secret: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        region_name=s3.region,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=secret or s3.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def test_the_server_takes_only_the_right_password(children: Children, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, children).start()
    with connect(postgres.login(), purpose="test") as connection:
        assert connection.server_version // 10_000 == postgres.version
        assert connection.value("SHOW fsync") == "on"
    with pytest.raises(PreconditionError, match="password authentication failed"):
        connect(Login(postgres.conninfo(), "wrong"), purpose="test")
    assert postgres.password not in command_lines()
    assert str(postgres.port) in command_lines()


def test_odd_database_names_can_be_reached(children: Children, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, children).start()
    with connect(postgres.login(), purpose="test") as connection:
        connection.execute("""CREATE DATABASE "Bob's \\ ""Lines"" " """)
    with connect(postgres.login("""Bob's \\ "Lines" """), purpose="test") as connection:
        assert connection.dbname == """Bob's \\ "Lines" """


@as_root
def test_root_in_a_barred_home_gets_a_server_outside_that_is_gone_afterwards(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with Children() as children:
        postgres = EmbeddedPostgres(home, children).start()
        assert not postgres.data_dir.is_relative_to(home)
        outside = postgres.data_dir.parent
        assert postgres.data_dir.stat().st_uid != 0
        with connect(postgres.login(), purpose="test") as connection:
            assert connection.value("SELECT 1") == 1
    assert not outside.exists()


def test_a_second_start_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path;"
        "from pgsteward.children import Children; from pgsteward.demo.server import EmbeddedPostgres;"
        "print(EmbeddedPostgres(Path(sys.argv[1]), Children()).start().data_dir, flush=True); time.sleep(300)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
    assert left.exists()
    with Children() as children:
        second = EmbeddedPostgres(tmp_path, children).start()
        assert second.data_dir == left or not left.exists()
        with connect(second.login(), purpose="test") as connection:
            assert connection.value("SELECT 1") == 1


def test_a_wrong_setting_ends_the_start_with_the_servers_own_words(
    children: Children, tmp_path: Path
) -> None:
    with pytest.raises(ToolFailed, match="unrecognized configuration parameter"):
        EmbeddedPostgres(tmp_path, children, settings={"no_such_thing": "1"}).start()


def test_stopping_a_full_server_takes_no_time(children: Children, tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, children).start()
    with connect(postgres.login(), purpose="test"):
        start = time.monotonic()
        postgres.stop()
        assert time.monotonic() - start < 10  # a session that is waited for costs 15 s


def test_a_distribution_that_is_not_there_is_named(children: Children, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="initdb is missing"):
        EmbeddedPostgres(tmp_path, children, distribution=tmp_path)


def test_an_object_is_a_file_below_the_bucket(bucket: Bucket) -> None:
    client(bucket.s3).put_object(Bucket=bucket.s3.bucket, Key=f"{bucket.prefix}/a/b", Body=b"x" * 100)
    assert (bucket.folder / "a" / "b").read_bytes() == b"x" * 100


def test_a_wrong_secret_is_refused(s3: LocalS3) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(s3, secret="A" * 40).list_objects_v2(Bucket=s3.bucket)


def test_the_secret_is_in_no_command_line(s3: LocalS3) -> None:
    lines = command_lines()
    assert "serve s3" in lines
    assert s3.secret_access_key not in lines
