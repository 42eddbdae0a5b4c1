from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pgsteward import doctor
from pgsteward.backup.dump import back_up
from pgsteward.config import Config
from pgsteward.errors import PreconditionError, QueryFailed
from pgsteward.postgres import compose, identifier, literal
from pgsteward.results import StepResult
from pgsteward.targets import Target
from tests.servers import Bucket, Database

PASSWORD = "doctor's"


@pytest.fixture(autouse=True)
def no_prefect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its side is tested with the flows; here there is no project to be asked."""
    empty = tmp_path / "no project"
    empty.mkdir()
    monkeypatch.setenv("PGSTEWARD_HOME", str(empty))


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A login that may do nothing at all; its name needs quotes."""
    name = f"Role {database.name}"
    database.execute(compose("CREATE ROLE {} LOGIN PASSWORD {}", identifier(name), literal(PASSWORD)))
    yield name
    database.execute(compose("DROP OWNED BY {}", identifier(name)))
    database.execute(compose("DROP ROLE {}", identifier(name)))


def target_of(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role: str | None = None,
    **settings: Any,
) -> Target:
    monkeypatch.setenv("DOCTOR_PASSWORD", PASSWORD if role else database.password or "")
    conninfo = database.conninfo + (f" user='{role}'" if role else "")
    stores = settings.pop("stores", {"disk": {"url": f"file://{tmp_path}/store"}})
    app = {"conninfo": conninfo, "password": {"env": "DOCTOR_PASSWORD"}, "stores": tuple(stores), **settings}
    app.setdefault("backup", {"compress": "gzip:1"})  # which every client can do
    config = Config.model_validate(
        {"state_url": f"sqlite:///{tmp_path}/state.db", "stores": stores, "targets": {"app": app}}
    )
    return Target("app", config.target("app"), config)


def checks(result: StepResult) -> dict[str, dict[str, str]]:
    return {check["check"]: check for check in result.details["checks"]}


def plant(database: Database) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "Odd ""Schema"')
        connection.execute('CREATE TABLE "Odd ""Schema"."Order Lines" (id serial PRIMARY KEY, expires date)')
        connection.execute("CREATE TABLE public.secrets (id int)")
        connection.execute("ALTER TABLE public.secrets ENABLE ROW LEVEL SECURITY")
        connection.execute("SELECT lo_from_bytea(0, 'hidden')")


def test_a_superuser_with_a_folder_finds_nothing_wrong(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(database)
    result = doctor.examine(target_of(database, tmp_path, monkeypatch))
    found = checks(result)
    assert [c for c in found.values() if c["status"] not in ("ok", "skipped")] == [
        c for c in found.values() if c["check"] == "pgstattuple" and not database.server.contrib
    ]
    assert result.status == ("ok" if database.server.contrib else "failed")
    assert result.examined > 8


@pytest.mark.any_server
def test_a_folder_of_clients_that_holds_none_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks(
        doctor.examine(target_of(database, tmp_path, monkeypatch, client_dirs=(tmp_path / "bin",)))
    )
    assert found["clients"]["status"] == "warn"
    assert f"no pg_dump that can be run in {tmp_path}/bin" in found["clients"]["message"]
    assert "client_dirs" in found["clients"]["fix"]


@pytest.mark.any_server
def test_a_probe_leaves_nothing_in_the_store(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor.examine(target_of(database, tmp_path, monkeypatch))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_the_printed_grants_are_all_that_was_missing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    plant(database)
    target = target_of(database, tmp_path, monkeypatch, role)
    found = checks(doctor.examine(target))["backup rights"]
    assert found["status"] == "fail"
    assert 'GRANT USAGE ON SCHEMA "Odd ""Schema"' in found["fix"]
    with database.connect() as connection:
        for statement in found["fix"].removesuffix(";").split("; "):
            connection.execute(statement.encode())
    found = checks(doctor.examine(target))["backup rights"]
    assert "row-level security" in found["message"]
    database.execute(found["fix"].encode())
    assert checks(doctor.examine(target))["backup rights"]["status"] == "ok"


def test_many_missing_grants_become_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    with database.connect() as connection:
        for number in range(6):
            connection.execute(compose("CREATE TABLE {} (id int)", identifier(f"t{number}")))
    found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch, role)))["backup rights"]
    assert found["fix"] == f'GRANT pg_read_all_data TO "{role}";'


def test_maintenance_and_restore_say_whose_rights_they_lack(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    with database.connect() as connection:
        connection.execute("DROP EXTENSION IF EXISTS pgstattuple")
        connection.execute(compose("CREATE ROLE {}", identifier(f"owner_{database.name}")))
        connection.execute("CREATE TABLE owned (id int)")
        connection.execute(compose("ALTER TABLE owned OWNER TO {}", identifier(f"owner_{database.name}")))
    try:
        target = target_of(database, tmp_path, monkeypatch, role)
        found = checks(doctor.examine(target))
        for check in ("maintenance rights", "restore rights"):
            assert found[check]["status"] == "fail"
            with database.connect() as connection:
                for statement in found[check]["fix"].removesuffix(";").split("; "):
                    connection.execute(statement.encode())
        again = checks(doctor.examine(target))
        assert again["maintenance rights"]["status"] == "ok"
        assert again["restore rights"]["status"] == "warn"
        assert "not replace" in again["restore rights"]["message"]
    finally:
        database.execute(compose("DROP OWNED BY {} CASCADE", identifier(f"owner_{database.name}")))
        database.execute(compose("DROP ROLE {}", identifier(f"owner_{database.name}")))


@pytest.mark.parametrize(
    "column, settings, words",
    [
        ("expires timestamptz", {}, ""),
        ("other int", {}, "no column expires"),
        ("expires timestamp", {}, "whose zone is not known"),
        ("expires timestamp", {"time_zone": "UTC"}, ""),
        ("expires bigint", {}, "whose unit is not known"),
        ("expires bigint", {"unit": "ms"}, ""),
    ],
)
def test_session_tables_are_looked_up(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    settings: dict[str, str],
    words: str,
) -> None:
    database.execute(f'CREATE TABLE "Session Log" ({column})'.encode())
    table = {"table": '"Session Log"', "expires": "expires", **settings}
    target = target_of(database, tmp_path, monkeypatch, sessions=[table])
    found = checks(doctor.examine(target))['session table "Session Log"']
    assert found["status"] == ("fail" if words else "ok")
    assert words in found["message"]


def test_a_session_table_that_is_missing_is_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(database, tmp_path, monkeypatch, sessions=[{"table": "gone", "expires": "e"}])
    assert checks(doctor.examine(target))["session table gone"]["status"] == "fail"


@pytest.mark.contrib
def test_a_missing_extension_comes_with_its_statement(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    target = target_of(database, tmp_path, monkeypatch, role)
    assert checks(doctor.examine(target))["pgstattuple"]["fix"] == (f'GRANT pg_stat_scan_tables TO "{role}";')
    database.execute("DROP EXTENSION pgstattuple")
    assert checks(doctor.examine(target))["pgstattuple"]["fix"] == "CREATE EXTENSION pgstattuple;"


@pytest.mark.any_server
def test_an_unreachable_server_makes_its_rights_unknown_and_spares_the_rest(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_of(database, tmp_path, monkeypatch, role="nobody-here")
    result = doctor.examine(target)
    found = checks(result)
    assert result.status == "failed"
    assert found["server (backup)"]["status"] == "fail"
    assert found["backup rights"]["status"] == "unknown"
    assert found["store disk"]["status"] == "ok"


@pytest.mark.any_server
def test_what_a_store_is_asked_for_and_ignores_is_wrong_with_a_fix(
    database: Database, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone ignores encryption, and repeats the header as if it had not."""
    monkeypatch.setenv("KEY", bucket.s3.access_key_id)
    monkeypatch.setenv("SECRET", bucket.s3.secret_access_key)
    s3 = {
        "url": bucket.url,
        "endpoint_url": bucket.s3.endpoint_url,
        "access_key_id": {"env": "KEY"},
        "secret_access_key": {"env": "SECRET"},
        "sse": "s3",
    }
    result = doctor.examine(target_of(database, tmp_path, monkeypatch, stores={"s3": s3}))
    found = checks(result)
    assert result.status == "failed"
    for name in ("store s3", "store s3: encryption"):
        assert found[name]["status"] == "fail"
        assert "stored without" in found[name]["message"]
        assert found[name]["fix"].startswith("use a store that encrypts")
    assert found["store s3: multipart"]["status"] == "ok"
    assert found["store s3: checksum"]["message"].startswith("ignored")
    assert not [path for path in bucket.folder.rglob("*") if path.is_file()]


@pytest.mark.any_server
def test_a_store_in_s3_is_tried_for_real(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    monkeypatch.setenv("KEY", bucket.s3.access_key_id)
    monkeypatch.setenv("SECRET", bucket.s3.secret_access_key)
    monkeypatch.setenv("WRONG", "x" * 40)
    s3 = {
        "url": bucket.url,
        "endpoint_url": bucket.s3.endpoint_url,
        "region": "us-east-1",
        "access_key_id": {"env": "KEY"},
        "secret_access_key": {"env": "SECRET"},
    }
    wrong = {**s3, "url": f"{bucket.url}/wrong", "secret_access_key": {"env": "WRONG"}}
    stores = {"s3": s3, "wrong": wrong}
    found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch, stores=stores)))
    assert found["store s3"]["status"] == "ok"
    assert found["spool"]["status"] == "ok"
    assert found["store wrong"]["status"] == "fail"
    assert "check secret_access_key" in found["store wrong"]["message"]
    assert [path for path in bucket.folder.rglob("*") if path.is_file()] == []


@pytest.mark.any_server
def test_a_folder_that_can_not_be_written_is_a_failure_with_its_fix(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").write_text("a file")
    found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch)))["store disk"]
    assert found["status"] == "fail"
    assert "writable" in found["fix"]


@pytest.mark.any_server
def test_a_state_that_can_not_be_used_is_a_failure(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.db").mkdir()
    found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch)))["state"]
    assert found["status"] == "fail"


@pytest.mark.any_server
def test_prefect_is_skipped_where_its_side_is_not(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch)))["Prefect"]
    assert found["status"] == "skipped"


@pytest.mark.any_server
def test_no_secret_is_in_any_finding(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    result = doctor.examine(target_of(database, tmp_path, monkeypatch, role))
    assert PASSWORD not in str(result.as_json())


def test_a_role_that_may_read_just_its_part_backs_it_up(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """What is not dumped needs no right, and may be rewritten as often as anybody likes."""
    database.execute(
        "CREATE SCHEMA app; CREATE TABLE app.t AS SELECT 1 AS id;"
        " CREATE SCHEMA secret; CREATE TABLE secret.s ()"
    )
    database.execute(compose("GRANT USAGE ON SCHEMA app TO {r}", r=identifier(role)))
    part = {"compress": "gzip:1", "schemas": ["app"]}
    target = target_of(database, tmp_path, monkeypatch, role, backup=part)
    rights = checks(doctor.examine(target))["backup rights"]
    assert (rights["status"], rights["fix"]) == ("fail", f'GRANT SELECT ON app.t TO "{role}";')
    database.execute(rights["fix"].encode())
    assert checks(doctor.examine(target))["backup rights"]["status"] == "ok"

    over = threading.Event()

    def truncate() -> None:
        with database.connect() as session:
            while not over.wait(0.001):
                session.execute("TRUNCATE secret.s")

    with ThreadPoolExecutor(1) as pool:
        truncating = pool.submit(truncate)
        try:
            made = back_up(target)
        finally:
            over.set()
        truncating.result()
    assert (made.status, made.details["retried"]) == ("ok", [])

    wrong = target_of(database, tmp_path, monkeypatch, role, backup={"schemas": ["ap"]})
    rights = checks(doctor.examine(wrong))["backup rights"]
    assert rights["status"] == "fail"
    assert "matches no schema" in rights["message"]


def test_a_materialized_view_that_only_a_proof_would_read_is_in_no_backups_way(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    database.execute("CREATE MATERIALIZED VIEW secret AS SELECT 1 AS id; CREATE TABLE t (id int)")
    database.execute(compose("GRANT SELECT ON t TO {r}", r=identifier(role)))
    target = target_of(database, tmp_path, monkeypatch, role)
    assert checks(doctor.examine(target))["backup rights"]["status"] == "ok"
    made = back_up(target)
    assert (made.status, made.details["proof"]["not_examined"]) == ("ok", 0)
    (note,) = made.skipped
    assert note.object == "public.secret"
    assert "our role has no SELECT on it" in note.reason


def test_a_login_that_finds_no_way_to_create_databases_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    rights = "CONNECT ON DATABASE postgres, template1"
    database.execute(
        compose("GRANT CONNECT ON DATABASE {} TO {}", identifier(database.name), identifier(role))
    )
    with database.connect() as session:
        session.execute(f"REVOKE {rights} FROM PUBLIC".encode())
        try:
            found = checks(doctor.examine(target_of(database, tmp_path, monkeypatch, role)))
        finally:
            session.execute(f"GRANT {rights} TO PUBLIC".encode())
    assert found["server (restore)"]["status"] == "fail"
    assert (
        "a restore connects to the database postgres (or template1)" in found["server (restore)"]["message"]
    )
    assert found["restore rights"]["status"] == "unknown"


def test_what_a_role_is_not_shown_and_may_not_write_is_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    database.execute(compose("ALTER ROLE {r} SET default_transaction_read_only = on", r=identifier(role)))
    target = target_of(database, tmp_path, monkeypatch, role)
    found = checks(doctor.examine(target))
    assert [found[f"writing ({purpose})"]["status"] for purpose in ("maintenance", "restore")] == ["fail"] * 2
    assert "writing (backup)" not in found
    assert [name for name in found if name.startswith("statistics")] == ["statistics (backup)"]
    database.execute(found["statistics (backup)"]["fix"].encode())
    database.execute(found["writing (restore)"]["fix"].rpartition("or ")[2].encode())
    left = checks(doctor.examine(target))
    assert [name for name in left if name.startswith(("statistics", "writing"))] == []


def test_a_role_that_may_not_tell_the_cluster_is_given_the_statement(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    database.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    target = target_of(database, tmp_path, monkeypatch, role)
    with pytest.raises(QueryFailed, match="pg_control_system; `pgsteward doctor` prints the missing GRANT"):
        back_up(target, dry_run=True)
    found = checks(doctor.examine(target))
    for name in ("marks (backup)", "marks (maintenance)"):
        assert found[name]["status"] == "fail"
        assert found[name]["fix"] == (
            f'GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO "{role}";'
        )
    database.execute(found["marks (backup)"]["fix"].encode())
    assert "marks (backup)" not in checks(doctor.examine(target))
    assert back_up(target).status == "ok"


@pytest.mark.contrib
def test_rows_of_an_extension_that_are_dumped_have_to_be_readable(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """As pg_cron does; what else belongs to an extension is not dumped, and needs no right."""
    database.execute(
        "CREATE TABLE jobs (a int); CREATE TABLE other (a int);"
        " ALTER EXTENSION pgstattuple ADD TABLE jobs; ALTER EXTENSION pgstattuple ADD TABLE other;"
        " UPDATE pg_extension SET extconfig = ARRAY['jobs'::regclass]::oid[], extcondition = ARRAY['']"
        "  WHERE extname = 'pgstattuple'"
    )
    target = target_of(database, tmp_path, monkeypatch, role)
    rights = checks(doctor.examine(target))["backup rights"]
    assert (rights["status"], rights["fix"]) == ("fail", f'GRANT SELECT ON public.jobs TO "{role}";')
    with pytest.raises(PreconditionError, match=r"public\.jobs: no SELECT"):
        back_up(target, dry_run=True)
    without = target_of(
        database, tmp_path, monkeypatch, role, backup={"compress": "gzip:1", "exclude_table_data": ["jobs"]}
    )
    assert checks(doctor.examine(without))["backup rights"]["status"] == "ok"
    assert back_up(without).status == "ok"
    database.execute(rights["fix"].encode())
    assert back_up(target).status == "ok"
