"""What is red freezes pruning until a person says why it may go on."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from pgsteward.backup.catalog import backups, verify
from pgsteward.backup.dump import back_up
from pgsteward.backup.freeze import clear_freeze
from pgsteward.backup.home import home_store
from pgsteward.backup.manifest import MANIFEST, backup_prefix
from pgsteward.backup.receipts import read_receipts
from pgsteward.backup.upload import upload
from pgsteward.cli import app
from pgsteward.errors import (
    ConfigError,
    DamagedBackup,
    StewardError,
    StoreUnavailable,
    VerificationFailed,
)
from pgsteward.restore.run import restore
from pgsteward.retention import prune
from pgsteward.state import open_history
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target, sealed
from tests.integration.old_backups import POLICY, age, as_toml, keys, newest, of_cluster, receipt
from tests.integration.test_listing import documented
from tests.servers import Bucket, Database

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def target(database: Database, bucket: Bucket, tmp_path: Path) -> Target:
    database.execute('CREATE TABLE "Order Lines" AS SELECT 1 AS a')
    target = make_target(database, tmp_path, bucket=bucket, stores=("disk", "s3"), retention=POLICY)
    back_up(target)
    upload(target)
    return target


def test_a_red_receipt_takes_the_proof_back_and_freezes_pruning_until_somebody_clears_it(
    target: Target,
) -> None:
    disk, s3 = target.stores()
    old, older = age(target, disk, 5), age(target, s3, 6)
    receipt(target, disk, old)
    assert [item.object for item in prune(target, dry_run=True).changed] == [older]
    receipt(target, disk, old, "red")
    before = [keys(store) for store in target.stores()]
    for dry_run in (True, False):
        frozen = prune(target, dry_run=dry_run, yes_remove=None if dry_run else 1)
        assert (frozen.status, frozen.changed, frozen.only_findings) == ("partial", (), False)
        assert "frozen" in frozen.summary
        (found,) = frozen.failed
        assert found.object == old
        assert "prune app --clear-freeze" in found.reason
        assert {d["backup_id"] for d in frozen.details["decisions"]} >= {old, older}  # and says what it knows
    assert [keys(store) for store in target.stores()] == before

    with pytest.raises(ConfigError, match="say why"):
        clear_freeze(target, "  ")
    assert clear_freeze(target, "tried out", dry_run=True).changed[0].action == "would clear"
    assert prune(target).failed
    cleared = clear_freeze(target, "the disk was changed")
    assert (cleared.status, [item.facts["store"] for item in cleared.changed]) == ("ok", ["disk"])
    chain, _ = read_receipts(disk, target.name, target.database)
    assert (chain[-1].verdict, chain[-1].reason) == ("cleared", "the disk was changed")
    assert "@" in chain[-1].by
    assert clear_freeze(target, "once more").changed == ()

    pruned = prune(target)
    assert [item.object for item in pruned.changed] == [older]
    reasons = {d["backup_id"]: d["reasons"][0] for d in pruned.details["decisions"]}
    assert "newest receipt is red" in reasons[old]  # known to be bad: no rule, and nobody deletes it
    receipt(target, disk, old, "red")
    assert prune(target).failed, "what is red after that freezes again"


def test_what_is_on_its_way_to_a_store_holds_pruning_back_and_freezes_it_when_red(
    database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    target = make_target(database, tmp_path, bucket=bucket, stores=("s3",), retention=POLICY)
    back_up(target)
    upload(target)
    (s3,) = target.stores()
    old = age(target, s3, 5)
    assert [item.object for item in prune(target, dry_run=True).changed] == [old]
    waiting = str(back_up(target).details["backup_id"])
    assert prune(target).changed == ()  # the newest one is not in the store yet
    receipt(target, home_store(target), waiting, "red")
    frozen = prune(target)
    assert (frozen.status, frozen.changed) == ("partial", ())
    assert [found.object for found in frozen.failed] == [waiting]


def test_what_a_frozen_store_that_is_down_says_is_unknown(target: Target, tmp_path: Path) -> None:
    receipt(target, target.store("disk"), newest(target), "red")
    (tmp_path / "secret").write_text("NotTheSecretNotTheSecretNotTheSecret0000")
    cleared = clear_freeze(target, "looked at")
    assert cleared.status == "partial"
    assert [note.object for note in cleared.unknown] == ["store s3"]


@pytest.mark.parametrize(
    "store, how", [("disk", "changed"), ("s3", "cut off"), ("disk", "missing"), ("s3", "manifest")]
)
def test_verify_leaves_evidence_of_damage_and_of_its_repair(target: Target, store: str, how: str) -> None:
    place, backup_id = target.store(store), newest(target)
    prefix = backup_prefix(target.name, target.database, backup_id)
    key = prefix + (MANIFEST if how == "manifest" else "dump/toc.dat")
    right = place.get_bytes(key)
    wrong = {"changed": right[:-1] + bytes([right[-1] ^ 1]), "cut off": right[:-1], "manifest": right[:-9]}
    place.delete(key) if how == "missing" else place.put_bytes(key, wrong[how])
    for _ in range(2):  # the second time tells nothing new
        assert verify(target, backup_id).status == "failed"
    assert [note.object for note in prune(target).failed] == [backup_id]
    chain, _ = read_receipts(place, target.name, target.database)
    assert [(each.what, each.verdict, each.backup_id) for each in chain] == [("verify", "red", backup_id)]
    (other,) = (each for each in target.stores() if each.name != store)
    (copy,), _ = read_receipts(other, target.name, target.database)
    assert (copy.verdict, copy.store, copy.copy_of) == ("red", store, store)
    (theirs,) = (d for d in prune(target).details["decisions"] if d["store"] == other.name)
    assert theirs["reasons"][0] == "last 1 of 1", "it is not about the copy there"

    clear_freeze(target, "to be put back from the other store")
    assert verify(target, backup_id).status == "failed"
    assert prune(target).failed == (), "it is known, and somebody has seen it"
    place.put_bytes(key, right)
    (left,) = (d for d in prune(target).details["decisions"] if d["store"] == store)
    assert "newest receipt is red" in left["reasons"][0]
    assert verify(target, backup_id).status == "ok"
    assert verify(target, backup_id).status == "ok"  # nothing more to say
    chain, _ = read_receipts(place, target.name, target.database)
    assert [each.verdict for each in chain] == ["red", "cleared", "green"]
    assert backups(target).details["backups"][0]["state"] == "complete"
    (kept,) = (d for d in prune(target).details["decisions"] if d["store"] == store)
    assert kept["reasons"][0] == "last 1 of 1"


def test_a_file_too_many_and_a_store_that_is_down_are_no_evidence(target: Target, tmp_path: Path) -> None:
    disk, backup_id = target.store("disk"), newest(target)
    disk.put_bytes(backup_prefix(target.name, target.database, backup_id) + "notes.txt", b"x")
    (tmp_path / "secret").write_text("NotTheSecretNotTheSecretNotTheSecret0000")
    assert verify(target, backup_id).status == "failed"
    with pytest.raises(StewardError):
        restore(target, backup_id, store="s3")
    assert read_receipts(disk, target.name, target.database) == ([], [])
    assert prune(target).failed == ()


@contextlib.contextmanager
def cut_off(endpoint_url: str, asked: bytes, after_bytes: int) -> Iterator[str]:
    """Stand before a store, and cut each answer to what was asked after so many bytes; yield the address."""
    there = urlsplit(endpoint_url)

    def pass_on(source: socket.socket, to: socket.socket, cut: threading.Event, *, down: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not down and asked in data:
                    cut.set()
                    passed = 0
                if down and cut.is_set():
                    data = data[: max(0, after_bytes - passed)]
                    passed += len(data)
                to.sendall(data)
                if down and cut.is_set() and passed >= after_bytes:
                    break
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    class Between(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            cut = threading.Event()
            with socket.create_connection((str(there.hostname), there.port or 80)) as server:
                up = threading.Thread(
                    target=pass_on, args=(self.request, server, cut), kwargs={"down": False}
                )
                up.start()
                pass_on(server, self.request, cut, down=True)
                up.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Between) as between:
        between.daemon_threads = True
        serving = threading.Thread(target=between.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{between.server_address[1]}"
        finally:
            between.shutdown()
            serving.join()


@pytest.mark.parametrize("head_bytes", [120, 600], ids=["in its head", "in its body"])
def test_an_answer_that_is_cut_off_is_no_evidence(target: Target, head_bytes: int) -> None:
    backup_id, s3 = newest(target), target.store("s3")
    toc = backup_prefix(target.name, target.database, backup_id) + "dump/toc.dat"
    half = len(s3.get_bytes(toc)) // 2 if head_bytes == 600 else 0
    endpoint_url = target.config.stores["s3"].endpoint_url
    assert endpoint_url
    with cut_off(endpoint_url, b"dump/toc.dat", head_bytes + half) as address:
        behind = target.config.stores["s3"].model_copy(update={"endpoint_url": address, "retries": 0})
        stores = {**target.config.stores, "s3": behind}
        cut = replace(target, config=target.config.model_copy(update={"stores": stores}))
        with pytest.raises(StoreUnavailable):
            verify(cut, backup_id, store="s3")
        with pytest.raises(StoreUnavailable):
            restore(cut, backup_id, store="s3")
    for store in target.stores():
        assert read_receipts(store, target.name, target.database) == ([], [])
    assert prune(target).failed == ()


def test_a_store_that_is_down_does_not_hide_what_is_red_there(target: Target, tmp_path: Path) -> None:
    disk, s3 = target.stores()
    old = age(target, disk, 5)
    toc = backup_prefix(target.name, target.database, newest(target)) + "dump/toc.dat"
    s3.put_bytes(toc, b"x" * len(s3.get_bytes(toc)))
    assert verify(target, newest(target), store="s3").status == "failed"
    (tmp_path / "secret").write_text("NotTheSecretNotTheSecretNotTheSecret0000")
    frozen = prune(target)
    assert [note.object for note in frozen.unknown] == ["store s3"]
    assert "red verify from store s3" in frozen.failed[0].reason
    assert any(old in key for key in keys(disk))


@pytest.mark.parametrize("store, how", [("s3", "changed"), ("disk", "missing"), ("disk", "manifest")])
def test_a_restore_that_meets_damage_freezes_pruning(target: Target, store: str, how: str) -> None:
    place, backup_id = target.store(store), newest(target)
    prefix = backup_prefix(target.name, target.database, backup_id)
    key = prefix + (MANIFEST if how == "manifest" else "dump/toc.dat")
    right = place.get_bytes(key)
    place.delete(key) if how == "missing" else place.put_bytes(key, right[:-1] + b"?")
    with pytest.raises(DamagedBackup):
        restore(target, backup_id, store=store, dry_run=True)
    assert read_receipts(place, target.name, target.database) == ([], []), "a dry run leaves nothing"
    with pytest.raises(DamagedBackup):
        restore(target, backup_id, store=store)
    (left,), _ = read_receipts(place, target.name, target.database)
    assert (left.what, left.verdict, left.store) == ("restore", "red", store)
    assert [note.object for note in prune(target).failed] == [backup_id]


def test_a_restore_that_is_not_equal_freezes_pruning(target: Target) -> None:
    disk, backup_id = target.store("disk"), newest(target)
    key = backup_prefix(target.name, target.database, backup_id) + MANIFEST
    proof = json.loads(disk.get_bytes(key))["proof"]
    proof["relations"][0]["rows"] += 1
    disk.put_bytes(key, sealed(disk.get_bytes(key), proof=proof))
    with pytest.raises(VerificationFailed, match="not what backup"):
        restore(target, backup_id, store="disk", into="never_there")
    (note,) = prune(target).failed
    assert note.object == backup_id
    assert "red restore from store disk" in note.reason
    assert "Order Lines" in note.reason


def test_the_command_line_asks_and_its_exit_status_says_how_it_went(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    config = target.config.model_copy(update={"state_url": f"sqlite:///{tmp_path}/state.db"})
    file.write_text(as_toml(config.model_dump(mode="json", exclude_unset=True)))

    def call(*args: str) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["-c", str(file), *args, "--json"])
        return done.exit_code, json.loads(done.stdout)

    disk = target.store("disk")
    old = [age(target, disk, days) for days in (3, 4)]
    status, stopped = call("prune")
    assert (status, stopped["status"], stopped["changed"]) == (3, "partial", [])
    assert call("prune", "--yes-remove", "1")[0] == 2
    assert {d["backup_id"] for d in stopped["decisions"] if d["action"] == "remove"} == set(old)
    assert set(stopped) == documented("Every command") | documented("`prune`")
    assert set(stopped["decisions"][0]) == documented("Each of `decisions`")

    receipt(target, disk, newest(target), "red")
    assert call("prune", "--yes-remove", "2")[0] == 3, "frozen"
    assert call("prune", "--clear-freeze", "")[0] == 2
    assert (
        CliRunner()
        .invoke(app, ["-c", str(file), "prune", "--clear-freeze", "x", "--yes-remove", "2"])
        .exit_code
        == 2
    )
    (tmp_path / "password").rename(tmp_path / "no password")  # no server is needed for it
    status, cleared = call("prune", "app", "--clear-freeze", "looked at it")
    assert (status, cleared["status"], cleared["reason"]) == (0, "ok", "looked at it")
    (tmp_path / "no password").rename(tmp_path / "password")
    with open_history(
        target.config.model_copy(update={"state_url": f"sqlite:///{tmp_path}/state.db"})
    ) as kept:
        assert ("clear-freeze",) in [run.steps for run in kept.recent("app")]

    # the newest one is known to be red: of the two others the older may go, which is half of them
    plain = CliRunner().invoke(app, ["-c", str(file), "prune", "--dry-run"])
    assert plain.exit_code == 0
    rows = {line.split()[0]: line for line in plain.stdout.splitlines() if " disk " in line}
    assert all(word in rows[old[1]] for word in ("4 d", "no", "remove", "no rule keeps it"))
    assert "last 1 of 1" in rows[old[0]]
    status, pruned = call("prune")
    assert (status, [item["object"] for item in pruned["changed"]]) == (0, [old[1]])

    of_cluster(target, disk, old[0], "7301234567890123456")
    status, refused = call("prune")
    assert (status, refused["error"]) == (1, "PreconditionError")


def test_what_is_red_is_told_by_the_store_that_is_read_and_not_by_its_earlier_name(target: Target) -> None:
    disk, s3 = target.stores()
    backup_id = newest(target)
    receipt(target, disk, backup_id, "red")
    receipt(target, s3, backup_id)
    swapped = {"disk": target.config.stores["s3"], "s3": target.config.stores["disk"]}
    under_other_names = replace(target, config=target.config.model_copy(update={"stores": swapped}))
    entry = backups(under_other_names).details["backups"][0]
    assert entry["state"] == "differs"
    assert "from s3 was not equal" in backups(under_other_names).findings[0].reason
    receipt(target, under_other_names.store("s3"), backup_id)  # repaired, and found equal
    assert backups(under_other_names).details["backups"][0]["state"] == "proven"
