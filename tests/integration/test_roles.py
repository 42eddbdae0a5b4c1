"""The roles of ``roles.sql`` do a whole night's work, and have no right that it does not need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgsteward import doctor
from pgsteward.analyze import analyze_stale
from pgsteward.backup.catalog import verify
from pgsteward.backup.run import back_up_everywhere
from pgsteward.config import Config
from pgsteward.errors import QueryFailed, VerificationFailed
from pgsteward.index_bloat import detect
from pgsteward.init import roles_sql
from pgsteward.janitor import clean_up
from pgsteward.matviews import refresh
from pgsteward.postgres import Login, compose, connect, identifier, literal
from pgsteward.reindex import reindex
from pgsteward.restore.run import restore
from pgsteward.results import StepResult
from pgsteward.sessions import clean_sessions
from pgsteward.targets import Target
from pgsteward.vacuum import vacuum_tables
from tests.servers import Database

OWNER = "Shop Owner"
ROLES = ("pgsteward_backup", "pgsteward_maintenance", "pgsteward_restore")
PASSWORD = "roles-in-a-test"

GIVE_AWAY = """
DO $$
DECLARE
    owned record;
BEGIN
    FOR owned IN SELECT CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'v' THEN 'VIEW'
                                       WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
                        format('%I.%I', n.nspname, c.relname) AS name
                   FROM pg_class AS c
                   JOIN pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                    AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
                    AND NOT EXISTS (SELECT FROM pg_depend AS d
                                     WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                       AND d.deptype IN ('a', 'e', 'i'))
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO "Shop Owner"', owned.kind, owned.name);
    END LOOP;
    FOR owned IN SELECT 'TYPE' AS kind, format('%I.%I', n.nspname, t.typname) AS name
                   FROM pg_type AS t
                   JOIN pg_namespace AS n ON n.oid = t.typnamespace
                  WHERE n.nspname = 'public' AND t.typtype IN ('e', 'd')
                  UNION ALL
                 SELECT 'LARGE OBJECT', m.oid::text FROM pg_largeobject_metadata AS m
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO "Shop Owner"', owned.kind, owned.name);
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO "Shop Owner"', current_database());
END
$$
"""


@pytest.fixture
def shop(sample_database: Database) -> Iterator[Database]:
    """The sample, owned by an application's role, with a large object, and the roles."""
    try:
        with sample_database.connect() as connection:
            connection.execute(compose("CREATE ROLE {}", identifier(OWNER)))
            connection.execute("SELECT lo_from_bytea(0, 'large')")
            connection.execute(GIVE_AWAY.encode())
            connection.execute(roles_sql().encode())
            for role in ROLES:
                connection.execute(compose("ALTER ROLE {} PASSWORD {}", identifier(role), literal(PASSWORD)))
        yield sample_database
    finally:
        forget(sample_database)


def forget(database: Database) -> None:
    """Drop the roles, and what restores made in their names."""
    with database.connect() as connection:
        for row in connection.rows(
            "SELECT d.datname::text AS name FROM pg_database AS d"
            " WHERE d.datname LIKE %(like)s OR d.datname LIKE 'pgsteward_tmp%%'",
            {"like": f"{database.name}_%"},
        ):
            database.server.drop(row["name"])
        connection.execute(compose("ALTER DATABASE {} OWNER TO CURRENT_USER", identifier(database.name)))
        roles = connection.rows(
            "SELECT rolname::text AS name FROM pg_roles WHERE rolname = ANY (%(names)s)",
            {"names": [*ROLES, OWNER]},
        )
        for row in roles:
            connection.execute(compose("DROP OWNED BY {} CASCADE", identifier(row["name"])))
        for row in roles:
            connection.execute(compose("DROP ROLE {}", identifier(row["name"])))


@pytest.fixture
def target(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("ROLES_PASSWORD", PASSWORD)
    monkeypatch.setenv("PGSTEWARD_HOME", str(tmp_path))

    def login(kind: str) -> dict[str, object]:
        return {
            "conninfo": f"{shop.conninfo} user=pgsteward_{kind}",
            "password": {"env": "ROLES_PASSWORD"},
        }

    app = {
        **login("backup"),
        "backup": {"compress": "gzip:1"},  # which every client can do
        "stores": ("disk",),
        "client_dirs": (shop.server.bin_dir,) if shop.server.bin_dir else (),
        "maintenance": login("maintenance"),
        "restore": login("restore"),
        "sessions": [{"table": "public.sessions", "expires": "expires"}],
        "index_bloat": {"min_reclaimable": 1},
    }
    config = Config.model_validate(
        {
            "state_url": f"sqlite:///{tmp_path}/state.db",
            "stores": {"disk": {"url": f"file://{tmp_path}/store"}},
            "targets": {"app": app},
        }
    )
    return Target("app", config.target("app"), config)


@pytest.mark.contrib
def test_the_roles_do_a_whole_nights_work(target: Target) -> None:
    work: tuple[Callable[[Target], StepResult], ...] = (
        clean_up,
        back_up_everywhere,
        clean_sessions,
        vacuum_tables,
        detect,
        reindex,
        analyze_stale,
        refresh,
    )
    for operation in work:
        result = operation(target)
        assert not result.failed, result.failed
        assert not result.unknown, result.unknown
        assert result.status in ("ok", "partial", "skipped"), result
    assert verify(target, "latest").status == "ok"


@pytest.mark.contrib
def test_the_roles_are_all_that_doctor_asks_for(target: Target, shop: Database) -> None:
    checks = doctor.examine(target).details["checks"]
    odd = {check["check"]: check for check in checks if check["status"] in ("fail", "unknown", "warn")}
    assert list(odd) == ["restore rights"]
    assert (
        "can't create pgstattuple: a restore leaves out what it may not create"
        in odd["restore rights"]["message"]
    )
    shop.execute("DROP EXTENSION pgstattuple")
    checks = doctor.examine(target).details["checks"]
    assert {c["check"]: c["status"] for c in checks}["restore rights"] == "ok"


def left_out(shop: Database) -> list[tuple[str, str]]:
    """What a restore leaves out of a database where the roles have been made."""
    create = "CREATE EXTENSION pgstattuple SCHEMA public"
    return [("EXTENSION pgstattuple", create)] if shop.server.contrib else []


def said(result: StepResult) -> list[tuple[str, str]]:
    """What was left out, and the end of the reason: the statement that helps."""
    return [(note.object, note.reason.rpartition(": ")[2]) for note in result.skipped]


def test_the_roles_bring_a_database_back_with_its_owners(target: Target, shop: Database) -> None:
    assert back_up_everywhere(target).status == "ok"
    result = restore(target, into=f"{shop.name}_back")
    assert not result.failed, result.failed
    assert said(result) == left_out(shop)
    assert result.details["receipt"] is not None
    with shop.server.connect(f"{shop.name}_back") as connection:
        assert connection.value(
            "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = 'public.jobs'::regclass"
        ) == (OWNER)


@pytest.mark.contrib
def test_an_extension_that_only_a_superuser_makes_is_told_before_the_restore(
    target: Target, shop: Database
) -> None:
    shop.execute("CREATE VIEW public.bloat AS SELECT * FROM pgstattuple('public.jobs')")
    assert back_up_everywhere(target).status == "ok"
    planned = restore(target, dry_run=True)
    assert planned.only_findings
    assert "may fail: only a superuser can create pgstattuple" in planned.summary
    checks = {check["check"]: check for check in planned.details["preflight"]}
    assert checks["extensions"]["verdict"] == "warning"
    assert (
        "only a superuser can create pgstattuple, and pgsteward_restore is none"
        in checks["extensions"]["says"]
    )
    with pytest.raises(VerificationFailed) as failed:
        restore(target, into=f"{shop.name}_back")
    assert "1 object failed: EXTENSION pgstattuple: left out: only a superuser can create it" in str(
        failed.value
    )
    assert "VIEW public.bloat: " in str(failed.value)


def test_the_roles_may_replace_the_database(target: Target, shop: Database) -> None:
    assert back_up_everywhere(target).status == "ok"
    shop.execute("DELETE FROM public.job_applications")
    result = restore(target, replace=True, confirm_database=shop.name)
    assert not result.failed, result.failed
    assert said(result) == left_out(shop)
    assert shop.value("SELECT count(*) FROM public.job_applications") > 0


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM public.jobs",
        "CREATE TABLE public.mine (id int)",
        "CREATE DATABASE mine",
        "ALTER TABLE public.jobs ADD COLUMN mine int",
    ],
)
def test_the_backup_role_can_change_nothing(target: Target, statement: str) -> None:
    login: Login = target.login("backup")
    with connect(login, purpose="test") as connection, pytest.raises(QueryFailed):
        connection.execute(statement.encode())


def test_the_roles_can_be_made_twice_and_where_search_path_leads_nowhere(shop: Database) -> None:
    shop.execute("DROP EXTENSION IF EXISTS pgstattuple")
    with shop.connect() as session:
        session.execute("SET search_path = nowhere")
        session.execute(roles_sql("steward of nowhere").encode())
    try:
        assert shop.value("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'steward of nowhere'")
    finally:
        shop.execute('DROP OWNED BY "steward of nowhere"; DROP ROLE "steward of nowhere"')


@pytest.mark.contrib
@pytest.mark.parametrize("login", ["o'brien steward", OWNER], ids=["a-new-role", "the-owner"])
def test_one_login_may_do_what_the_three_roles_do(shop: Database, target: Target, login: str) -> None:
    try:
        for _ in range(2):
            shop.execute(roles_sql(login).encode())
        shop.execute(compose("ALTER ROLE {} LOGIN PASSWORD {}", identifier(login), literal(PASSWORD)))
        quoted = login.replace("'", r"\'")
        app = {
            "conninfo": f"{shop.conninfo} user='{quoted}'",
            "password": {"env": "ROLES_PASSWORD"},
            "stores": ("disk",),
            "client_dirs": target.settings.client_dirs,
            "backup": {"compress": "gzip:1"},  # every client can; doctor would name the missing codec
            "sessions": [{"table": "public.sessions", "expires": "expires"}],
        }
        config = Config.model_validate(
            {
                "state_url": target.config.state_url,
                "stores": {"disk": target.config.stores["disk"]},
                "targets": {"app": app},
            }
        )
        checks = doctor.examine(Target("app", config.target("app"), config)).details["checks"]
        odd = {check["check"]: check for check in checks if check["status"] in ("fail", "unknown", "warn")}
        assert list(odd) == ["restore rights"]
        assert "can't create pgstattuple" in odd["restore rights"]["message"]
    finally:
        if login != OWNER:
            shop.execute(compose("DROP OWNED BY {}", identifier(login)))
            shop.execute(compose("DROP ROLE {}", identifier(login)))
