"""Materialized views, refreshed on a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pgsteward.matviews import refresh
from pgsteward.postgres import compose, identifier
from pgsteward.results import StepResult
from tests.integration.backup_targets import make_target
from tests.integration.maintenance import facts_of, temporary_role
from tests.servers import Database

ODD = 'z, {1} "2"'


@pytest.fixture
def chain(database: Database) -> Database:
    """An oddly named view, read by another through two plain views, read by a third that fails on demand."""
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
        connection.execute("INSERT INTO t SELECT generate_series(1, 100)")
        odd = identifier(ODD)
        connection.execute(compose("CREATE MATERIALIZED VIEW {} AS SELECT * FROM t", odd))
        connection.execute(compose("CREATE VIEW v1 AS SELECT * FROM {}", odd))
        connection.execute('CREATE VIEW "v""2" AS SELECT a FROM v1')
        connection.execute('CREATE MATERIALIZED VIEW a AS SELECT max(a) AS a FROM "v""2"')
        connection.execute("CREATE UNIQUE INDEX ON a (a)")
        connection.execute("CREATE MATERIALIZED VIEW b AS SELECT 1 / (500 - a) AS b FROM a WITH NO DATA")
        connection.execute("CREATE MATERIALIZED VIEW c AS SELECT * FROM b WITH NO DATA")
        connection.execute("CREATE MATERIALIZED VIEW sibling AS SELECT count(*) FROM t")
        connection.execute("INSERT INTO t VALUES (200)")
    return database


def names(found: StepResult) -> list[str]:
    return [item.object for item in found.changed]


def test_views_are_refreshed_after_what_they_read_through_plain_views(
    chain: Database, tmp_path: Path
) -> None:
    found = refresh(make_target(chain, tmp_path))
    assert found.status == "ok"
    order = names(found)
    odd = 'public."z, {1} ""2"""'
    assert order.index(odd) < order.index("public.a") < order.index("public.b") < order.index("public.c")
    modes = {item.object: item.facts["mode"] for item in found.changed}
    assert modes == {
        odd: "exclusive",
        "public.a": "concurrently",
        "public.b": "populate",
        "public.c": "populate",
        "public.sibling": "exclusive",
    }
    assert chain.value("SELECT a FROM a") == 200


def test_a_dry_run_lists_order_and_mode_and_refreshes_nothing(chain: Database, tmp_path: Path) -> None:
    found = refresh(make_target(chain, tmp_path), dry_run=True).as_json()
    assert [(entry["matview"], entry["mode"]) for entry in found["order"]] == [
        (item["object"], item["mode"]) for item in found["changed"]
    ]
    assert facts_of(found, "public.a")["action"] == "would refresh"
    assert chain.value("SELECT a FROM a") == 100


def test_what_reads_a_failed_view_is_skipped_by_name_and_siblings_go_on(
    chain: Database, tmp_path: Path
) -> None:
    chain.execute("INSERT INTO t VALUES (500)")
    found = refresh(make_target(chain, tmp_path))
    assert found.status == "partial"
    assert [note.object for note in found.failed] == ["public.b"]
    assert "division by zero" in found.failed[0].reason
    assert [(note.object, note.reason) for note in found.skipped] == [
        ("public.c", "it reads public.b, which was not refreshed")
    ]
    assert "public.sibling" in names(found)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("CREATE UNIQUE INDEX ON a (a) WHERE a > 3", id="partial"),
        pytest.param("CREATE UNIQUE INDEX ON a ((a + 1))", id="expression"),
        pytest.param("CREATE INDEX ON a (a)", id="not-unique"),
    ],
)
def test_an_index_that_concurrently_can_not_use_does_not_count(
    database: Database, tmp_path: Path, index: str
) -> None:
    database.execute("CREATE MATERIALIZED VIEW a AS SELECT generate_series(1, 9) AS a")
    with database.connect() as connection:
        connection.execute(index.encode())
    assert refresh(make_target(database, tmp_path)).changed[0].facts["mode"] == "exclusive"
    found = refresh(make_target(database, tmp_path, matviews={"allow_exclusive": False}))
    assert found.status == "skipped"
    assert "no unique index" in found.skipped[0].reason


def test_readers_go_on_during_a_concurrent_refresh_and_a_second_one_waits_in_vain(
    chain: Database, tmp_path: Path
) -> None:
    chain.execute(compose("CREATE UNIQUE INDEX ON {} (a)", identifier(ODD)))
    refresh(make_target(chain, tmp_path))
    target = make_target(chain, tmp_path, matviews={"lock_timeout_s": 0.3})
    with chain.connect(purpose="other refresh", autocommit=False) as other:
        other.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY a")
        assert chain.value("SELECT a FROM a") == 200
        began = time.monotonic()
        found = refresh(target)
    assert time.monotonic() - began < 10
    assert found.failed[0].object == "public.a"
    assert "other refresh" in found.failed[0].reason
    assert {note.object for note in found.skipped} == {"public.b", "public.c"}


def test_a_missing_right_fails_with_the_grant(chain: Database, tmp_path: Path) -> None:
    with temporary_role(chain) as login:
        found = refresh(make_target(chain, tmp_path, login=login))
    assert found.status == "failed"
    assert all("GRANT" in note.reason for note in found.failed)


def test_views_that_read_each_other_are_said_to(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE MATERIALIZED VIEW one AS SELECT 1 AS n")
    database.execute("CREATE VIEW between AS SELECT n FROM one")
    database.execute("CREATE MATERIALIZED VIEW two AS SELECT n FROM between")
    database.execute("CREATE VIEW back AS SELECT 2 AS n")
    database.execute("CREATE MATERIALIZED VIEW three AS SELECT n FROM back")
    database.execute("CREATE VIEW front AS SELECT n FROM three")
    database.execute("CREATE MATERIALIZED VIEW four AS SELECT n FROM front")
    database.execute("CREATE OR REPLACE VIEW back AS SELECT n FROM four")
    found = refresh(make_target(database, tmp_path))
    assert found.findings[0].object == "public.four, public.three"
    assert len(found.changed) == 4


def test_without_any_view_the_step_is_skipped(database: Database, tmp_path: Path) -> None:
    assert refresh(make_target(database, tmp_path)).status == "skipped"


def test_an_excluded_view_is_left_alone(chain: Database, tmp_path: Path) -> None:
    found = refresh(make_target(chain, tmp_path, matviews={"exclude": ["sib*"]}))
    assert found.skipped[0].reason == "excluded by matviews.exclude"
    assert "public.sibling" not in names(found)
