"""A restore with a store's URL and a server: no configuration, no state, no Prefect, no source server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from pgsteward.backup.catalog import backups
from pgsteward.backup.dump import back_up
from pgsteward.backup.upload import upload
from pgsteward.errors import ConfigError, PreconditionError
from pgsteward.postgres import compose, identifier
from pgsteward.restore.from_url import Source, find_target
from pgsteward.targets import Target
from tests.integration.backup_targets import make_target
from tests.servers import Bucket, Database, Server

pytestmark = pytest.mark.any_server

WITHOUT_PREFECT = """
import sys

class NoPrefect:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "prefect":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoPrefect())
try:
    import prefect
except ModuleNotFoundError:
    pass
else:
    sys.exit("Prefect can be imported")
from pgsteward.cli import main

main()
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def new_name(server: Server) -> Iterator[str]:
    name = f"restored_{uuid.uuid4().hex[:10]}"
    yield name
    server.drop(name)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'store'}"


@pytest.fixture
def target(database: Database, tmp_path: Path) -> Target:
    database.execute("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 100) AS g")
    return make_target(database, tmp_path)


def call(server: Server, folder: Path, *args: str, **env: str) -> tuple[int, dict[str, Any], str]:
    """Run the command line in an empty folder, as a user who has nothing, with Prefect not installed."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PGSTEWARD", "PREFECT", "XDG", "AWS")) and key != "HOME"
    }
    kept |= {"HOME": str(home), **env}
    if server.login.password is not None:
        kept["PGPASSWORD"] = server.login.password
    if server.bin_dir is not None:
        kept["PATH"] = f"{server.bin_dir}:{kept['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PREFECT, "restore", *args, "--json"],
        cwd=home,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def test_a_folder_and_a_server_are_enough(
    target: Target, server: Server, url: str, tmp_path: Path, new_name: str
) -> None:
    backup_id = back_up(target).details["backup_id"]
    to = server.login.conninfo
    code, planned, log = call(server, tmp_path, "--from-url", url, "--to", to, "--dry-run")
    assert (code, planned["status"], planned["dry_run"]) == (0, "ok", True), log
    assert {check["check"] for check in planned["preflight"]} >= {"client", "name", "roles", "files"}
    part = ("--table", "public.t", "--schema-only", "--into", new_name)
    code, done, log = call(server, tmp_path, "--from-url", url, "--to", to, *part)
    assert (code, done["part"]["without_rows"], done["receipt"]) == (0, ["public.t"], None), log
    server.drop(new_name)
    code, done, log = call(server, tmp_path, "--from-url", url, "--to", to, "--into", new_name)
    assert (code, done["status"], done["backup_id"], done["target"]) == (0, "ok", backup_id, "app"), log
    assert done["proof"]["equal"]
    with server.connect(new_name) as connection:
        assert connection.value("SELECT count(*) FROM t") == 100
    assert backups(target).details["backups"][0]["state"] == "proven"
    assert not list((tmp_path / "home").rglob("state.db"))


def test_s3_speaks_through_the_environment_or_options(
    database: Database, bucket: Bucket, server: Server, tmp_path: Path, new_name: str
) -> None:
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    key, public = tmp_path / "key.txt", pyrage.x25519.Identity.generate()
    key.write_text(str(public))
    target = make_target(
        database,
        tmp_path,
        bucket=bucket,
        stores=("s3",),
        backup={"encrypt_to": [str(public.to_public())]},
    )
    backup_id = back_up(target).details["backup_id"]
    upload(target)
    keys = {
        "AWS_ACCESS_KEY_ID": bucket.s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": bucket.s3.secret_access_key,
    }
    shared = ("--from-url", bucket.url, "--to", server.login.conninfo, "--into", new_name)
    by_env = {**keys, "AWS_ENDPOINT_URL": bucket.s3.endpoint_url}
    code, refused, _ = call(server, tmp_path, *shared, **by_env)
    assert (code, refused["error"]) == (1, "PreconditionError")
    assert "--identity" in refused["summary"]
    code, planned, log = call(server, tmp_path, *shared, "--identity", str(key), "--dry-run", **by_env)
    assert (code, planned["backup_id"]) == (0, backup_id), log
    options = ("--endpoint-url", bucket.s3.endpoint_url, "--identity", str(key))
    code, done, log = call(server, tmp_path, *shared, *options, **keys)
    assert (code, done["status"]) == (0, "ok"), log
    assert done["proof"]["equal"]
    code, wrong, _ = call(
        server, tmp_path, *shared, *options, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y"
    )
    assert (code, wrong["status"]) == (1, "failed")


def test_missing_roles_are_created_and_others_left_as_they_are(
    database: Database, server: Server, url: str, tmp_path: Path, new_name: str
) -> None:
    tail = uuid.uuid4().hex[:8]
    owner, member, kept = f'Owner "{tail}', f"member_{tail}", f"kept_{tail}"
    names = {"owner": identifier(owner), "member": identifier(member), "kept": identifier(kept)}
    for statement in (
        "CREATE ROLE {owner} NOLOGIN",
        "CREATE ROLE {member} LOGIN CONNECTION LIMIT 3 PASSWORD 'secret' IN ROLE {owner}",
        "ALTER ROLE {member} SET work_mem TO '5MB'",
        "COMMENT ON ROLE {member} IS 'it''s; mine'",
        "CREATE ROLE {kept} NOLOGIN IN ROLE {owner}",
        "CREATE TABLE t AS SELECT 1 AS a",
        "ALTER TABLE t OWNER TO {owner}",
        "GRANT SELECT ON t TO {member}",
    ):
        database.execute(compose(statement, **names))
    target = make_target(database, tmp_path, backup={"role_passwords": True})
    back_up(target)
    for statement in (
        "DROP OWNED BY {owner}, {member}",
        "DROP ROLE {owner}, {member}",
        "ALTER ROLE {kept} LOGIN",
    ):
        database.execute(compose(statement, **names))
    to = ("--from-url", url, "--to", server.login.conninfo, "--into", new_name)
    try:
        _, planned, _ = call(server, tmp_path, *to, "--create-roles", "--dry-run")
        roles = {c["check"]: (c["verdict"], c["says"]) for c in planned["preflight"]}["roles"]
        assert roles[0] == "go"
        assert member in roles[1]
        assert server_roles(server, tail) == [kept]
        _, planned, _ = call(server, tmp_path, *to, "--dry-run")
        assert "--create-roles" in {c["check"]: c["fix"] for c in planned["preflight"]}["roles"]
        code, done, log = call(server, tmp_path, *to, "--create-roles")
        assert (code, done["status"]) == (0, "ok"), (done, log)
        made = {each["object"]: each["password"] for each in done["changed"] if each["action"] == "created"}
        quoted = '"' + owner.replace('"', '""') + '"'
        assert made == {f"role {quoted}": "none", f"role {member}": "from the backup"}
        said = {note["object"]: note["reason"] for note in done["skipped"]}
        assert "was there already" in said[f"membership of {kept} in {quoted}"]
        with server.connect(new_name) as connection:
            assert connection.value("SELECT tableowner FROM pg_tables WHERE tablename = 't'") == owner
            found = connection.row(
                "SELECT rolcanlogin, rolconnlimit, rolconfig,"
                " pg_has_role(oid, %(owner)s, 'MEMBER') AS is_member,"
                " shobj_description(oid, 'pg_authid') AS comment,"
                " (SELECT rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid AS a WHERE a.oid = r.oid)"
                " AS hashed"
                " FROM pg_roles AS r WHERE rolname = %(member)s",
                {"owner": owner, "member": member},
            )
            assert found == {
                "rolcanlogin": True,
                "rolconnlimit": 3,
                "rolconfig": ["work_mem=5MB"],
                "is_member": True,
                "comment": "it's; mine",
                "hashed": True,
            }
            stays = (
                "SELECT rolcanlogin AND NOT pg_has_role(oid, %(o)s, 'MEMBER')"
                " FROM pg_roles WHERE rolname = %(k)s"
            )
            assert connection.value(stays, {"o": owner, "k": kept}) is True
    finally:
        server.drop(new_name)
        for name in server_roles(server, tail):
            database.execute(compose("DROP ROLE {}", identifier(name)))


def server_roles(server: Server, tail: str) -> list[str]:
    with server.connect() as connection:
        rows = connection.rows(
            "SELECT rolname::text AS name FROM pg_roles WHERE strpos(rolname, %(t)s) > 0", {"t": tail}
        )
    return [row["name"] for row in rows]


def test_several_databases_are_listed_and_one_is_asked_for(
    target: Target, server: Server, url: str, tmp_path: Path
) -> None:
    back_up(target)
    source, to = Source(url, {}), server.login.conninfo
    found = find_target(source, to)
    assert (found.name, found.database) == ("app", target.database)
    store = target.store("disk")
    backup = backups(target).details["backups"][0]["backup_id"]
    for stored in list(store.objects(f"app/{target.database}/{backup}/")):
        moved = stored.key.replace(f"app/{target.database}/", "other/Odd%20name/")
        store.put_bytes(moved, store.get_bytes(stored.key))
    with pytest.raises(
        ConfigError, match=rf"app {target.database}, other Odd name; say which one: .*--database"
    ):
        find_target(source, to)
    assert find_target(source, to, target="other").database == "Odd name"
    assert find_target(source, to, database=target.database).name == "app"
    with pytest.raises(ConfigError, match="no backup of nobody; it has"):
        find_target(source, to, target="nobody")
    with pytest.raises(PreconditionError, match="no complete backup 20200101T000000Z-000000"):
        find_target(source, to, backup_id="20200101T000000Z-000000")


def test_a_url_that_leads_too_far_down_is_told(
    target: Target, server: Server, url: str, tmp_path: Path
) -> None:
    backup_id, to = back_up(target).details["backup_id"], server.login.conninfo
    for below, says in (
        ("app", "the last name of the URL"),
        (f"app/{target.database}", "the last two names"),
        (f"app/{target.database}/{backup_id}", "the last three names"),
        ("nowhere", "the folder above"),
    ):
        (tmp_path / "store" / "nowhere").mkdir(exist_ok=True)
        with pytest.raises(PreconditionError, match=says):
            find_target(Source(f"{url}/{below}", {}), to)


@pytest.mark.parametrize(
    "url, to, says",
    [
        ("ftp://x", "host=h", "--from-url: write"),
        ("s3://key:secret@bucket", "host=h", "keys come from the environment"),
        ("s3://bucket", "host=h password=x", "--to: .*PGPASSWORD"),
        ("s3://bucket", "postgresql://me:x@h/db", "--to: .*PGPASSWORD"),
        ("s3://bucket", "nonsense", "--to: write it as"),
    ],
)
def test_what_is_given_wrong_is_told_before_anything_is_asked(url: str, to: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_target(Source(url, {}), to)


@pytest.mark.parametrize(
    "args",
    [
        ["--from-url", "s3://b"],
        ["--to", "host=h"],
        ["--identity", "k"],
        ["--from-url", "s3://b", "--to", "host=h", "--from", "disk"],
    ],
)
def test_halves_of_a_restore_from_nothing_are_misuse(server: Server, tmp_path: Path, args: list[str]) -> None:
    code, told, _ = call(server, tmp_path, *args)
    assert (code, told["error"]) == (2, "ConfigError")
