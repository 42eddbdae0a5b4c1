from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pgsteward import clients
from pgsteward.clients import Client, choose_client, find_clients
from pgsteward.errors import PreconditionError


def fake_client(folder: Path, version: str, *, codecs: tuple[str, ...] = ("gzip",)) -> Client:
    """Make a folder with a pg_dump that tells this version and knows these codecs."""
    folder.mkdir(parents=True)
    cases = "".join(
        f"*--compress={codec}*) echo 'failed: nonexistent-pgsteward-probe' >&2;;" for codec in codecs
    )
    script = (
        f'#!/bin/sh\ncase "$*" in *--version*) echo "pg_dump (PostgreSQL) {version}"; exit 0;;'
        f' {cases} *) echo "this build does not support compression" >&2;; esac\nexit 1\n'
    )
    for tool in ("pg_dump", "pg_restore", "pg_dumpall"):
        (folder / tool).write_text(script)
        (folder / tool).chmod(0o755)
    major, _, minor = version.partition(".")
    return Client(folder, (int(major), int(minor.split()[0])))


def test_clients_are_found_and_asked_for_their_version(tmp_path: Path) -> None:
    fake_client(tmp_path / "a", "12.3 (Debian 12.3-1)")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pg_dump").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "broken" / "pg_dump").chmod(0o755)
    found = find_clients([tmp_path / "a", tmp_path / "broken", tmp_path / "missing"])
    mine = [client for client in found if tmp_path in client.folder.parents]
    assert mine == [Client(tmp_path / "a", (12, 3))]
    assert found == sorted(found, key=lambda client: client.version)


def test_debians_wrapper_script_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "pg_wrapper").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.0'\n")
    (tmp_path / "pg_wrapper").chmod(0o755)
    (tmp_path / "pg_dump").symlink_to(tmp_path / "pg_wrapper")
    assert all(client.folder != tmp_path for client in find_clients([tmp_path]))


def _in(folder: Path) -> list[Client]:
    return [client for client in find_clients([folder]) if client.folder == folder]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        pytest.param(b"#!/bin/sh\nhead -c 20000 /dev/urandom\n", "tells no version", id="garbage"),
        pytest.param(b"\x7fELF of another machine", "can't be started", id="another-architecture"),
        pytest.param(b"#!/bin/sh\nexec sleep 600\n", "no answer within", id="hangs"),
    ],
)
def test_a_broken_pg_dump_on_path_is_passed_over_with_a_warning(
    script: bytes,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(clients, "_ASKED_S", 1.0)
    (tmp_path / "pg_dump").write_bytes(script)
    (tmp_path / "pg_dump").chmod(0o755)
    assert _in(tmp_path) == []
    assert complaint in caplog.text


def test_a_folder_on_path_that_is_closed_to_us_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``su`` and cron hand down root's PATH: looking into /root/bin raised."""
    real_stat = os.stat

    def closed(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path, *args, **options)

    fake_client(tmp_path / "open", "12.3")
    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setenv("PATH", f"{tmp_path / 'closed'}:{tmp_path / 'open'}")
    assert Client(tmp_path / "open", (12, 3)) in find_clients([tmp_path / "closed"])


def test_a_folder_of_path_that_depends_on_where_we_are_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_client(tmp_path / "bin", "12.3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin:")
    assert all(client.folder.is_absolute() for client in find_clients())


def test_a_link_to_pg_dump_alone_leads_to_the_programs_beside_it(tmp_path: Path) -> None:
    fake_client(tmp_path / "opt", "12.3")
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "pg_dump").symlink_to(tmp_path / "opt" / "pg_dump")
    found = [c for c in find_clients([tmp_path / "local"]) if tmp_path in c.folder.parents]
    assert [(client.folder, client.lacks) for client in found] == [(tmp_path / "opt", ())]


def test_a_client_without_pg_restore_is_passed_over_and_refused_when_there_is_no_other(
    tmp_path: Path,
) -> None:
    for name in ("half", "whole"):
        fake_client(tmp_path / name, "97.1")
    for tool in ("pg_restore", "pg_dumpall"):
        (tmp_path / "half" / tool).unlink()
    half, whole = _in(tmp_path / "half"), _in(tmp_path / "whole")
    assert choose_client([*half, *whole], 970001).folder == tmp_path / "whole"
    with pytest.raises(PreconditionError, match=r"half has no pg_restore and no pg_dumpall.*client-97"):
        choose_client(half, 970001)


def test_a_restore_needs_no_pg_dumpall(tmp_path: Path) -> None:
    fake_client(tmp_path / "half", "97.1")
    (tmp_path / "half" / "pg_dumpall").unlink()
    assert choose_client(_in(tmp_path / "half"), 970001, needs=("pg_restore",)).version == (97, 1)


def test_the_oldest_client_that_is_new_enough_is_chosen_in_its_newest_minor() -> None:
    clients = [Client(Path(f"/{a}.{b}"), (a, b)) for a, b in ((15, 2), (16, 1), (16, 9), (17, 1))]
    assert choose_client(clients, 160004).version == (16, 9)
    assert choose_client(clients, 150000).version == (15, 2)


def test_a_server_newer_than_every_client_is_refused_with_what_to_install() -> None:
    with pytest.raises(PreconditionError, match=r"install postgresql-client-18.*client_dirs"):
        choose_client([Client(Path("/x"), (17, 4))], 180000)


def test_the_codec_is_asked_of_the_client_not_assumed_from_its_version(tmp_path: Path) -> None:
    without = fake_client(tmp_path / "without", "17.9")
    able = fake_client(tmp_path / "able", "18.1", codecs=("gzip", "zstd"))
    assert choose_client([without, able], 170000, codec="zstd") == able
    assert choose_client([without, able], 170000, codec="gzip") == without
    with pytest.raises(PreconditionError, match=r"can compress with lz4.*install postgresql-client-17"):
        choose_client([without, able], 170000, codec="lz4")
