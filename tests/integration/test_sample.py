"""What the sample database plants is really there, measured with PostgreSQL's own instruments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from pgsteward.demo.sample import PLANTED, REQUIRED_INDEXES, TABLES, Seeded, schema, seed
from pgsteward.demo.sample.__main__ import main
from pgsteward.errors import PreconditionError, QueryFailed
from pgsteward.postgres import Login, compose, connect, identifier, literal
from tests.servers import Database, Server, private_database

RECLAIMABLE = """
    SELECT index_size AS size_bytes,
           1 - (leaf_pages * avg_leaf_density / 90 + internal_pages + 1)
               / (index_size / current_setting('block_size')::int8) AS ratio
      FROM pgstatindex(%(index)s)
"""
INDEX_NAMES = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def seeded(server: Server) -> Any:
    """A sample of the demo's scale that tests only read."""
    with private_database(server) as database:
        yield database, seed(database.login, scale=0.03)


@pytest.fixture(scope="module")
def demo_size(seeded: tuple[Database, Seeded]) -> Database:
    return seeded[0]


def fingerprint(login: Login) -> dict[str, str]:
    """Return a digest of every row of every table, in the order of its key."""
    with connect(login, purpose="test") as connection:
        return {
            table: connection.value(
                compose("SELECT md5(string_agg(t::text, '' ORDER BY t.id)) FROM {} AS t", identifier(table))
            )
            for table in TABLES
        }


def test_seventy_percent_of_the_sessions_have_expired(demo_size: Database) -> None:
    (row,) = demo_size.rows(
        "SELECT count(*) AS n, count(*) FILTER (WHERE expires < now()) AS old FROM sessions"
    )
    assert row["old"] == row["n"] * PLANTED.expired_share


@pytest.mark.contrib
@pytest.mark.parametrize("index", PLANTED.bloated_indexes)
def test_more_than_two_fifths_and_a_megabyte_of_the_index_are_reclaimable(
    demo_size: Database, index: str
) -> None:
    (found,) = demo_size.rows(RECLAIMABLE, {"index": index})
    assert found["ratio"] >= 0.4
    assert found["ratio"] * found["size_bytes"] >= 1e6


@pytest.mark.parametrize("index", PLANTED.bloated_indexes)
def test_a_rebuild_gives_back_what_was_promised(sample_database: Database, index: str) -> None:
    size = "SELECT pg_relation_size(%(index)s::regclass)"
    before = sample_database.value(size, {"index": index})
    sample_database.execute(compose("REINDEX INDEX {}", identifier(*index.split("."))))
    assert sample_database.value(size, {"index": index}) < 0.6 * before


@pytest.mark.contrib
def test_the_sessions_indexes_are_bloated_once_the_expired_ones_are_gone(sample_database: Database) -> None:
    sample_database.execute("DELETE FROM sessions WHERE expires < now()")
    sample_database.execute("VACUUM (INDEX_CLEANUP ON) sessions")
    (found,) = sample_database.rows(RECLAIMABLE, {"index": "public.sessions_session_token_key"})
    assert found["ratio"] >= 0.6


def test_only_the_planted_tables_were_never_analyzed(demo_size: Database) -> None:
    rows = demo_size.rows(
        "SELECT 'public.' || relname AS name, last_analyze, last_autoanalyze FROM pg_stat_user_tables"
        " WHERE relname = ANY (%(tables)s)",
        {"tables": list(TABLES)},
    )
    never = {row["name"] for row in rows if row["last_analyze"] is None and row["last_autoanalyze"] is None}
    assert never == set(PLANTED.never_analyzed)


def test_the_purged_table_has_outdated_statistics(demo_size: Database) -> None:
    (row,) = demo_size.rows(
        "SELECT s.n_mod_since_analyze AS changed, c.reltuples"
        "  FROM pg_stat_user_tables AS s JOIN pg_class AS c ON c.oid = s.relid"
        " WHERE s.relid = %(table)s::regclass",
        {"table": PLANTED.outdated_statistics},
    )
    assert row["changed"] > 50 + 0.1 * row["reltuples"]


def test_the_stale_view_changes_with_a_refresh(sample_database: Database) -> None:
    total = "SELECT sum(total_applications) FROM job_stats_summary"
    before = sample_database.value(total)
    sample_database.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY job_stats_summary")
    assert sample_database.value(total) == sample_database.value("SELECT count(*) FROM job_applications")
    assert before > sample_database.value(total)


def test_the_summary_does_not_weigh_views_by_applications(sample_database: Database) -> None:
    sample_database.execute("REFRESH MATERIALIZED VIEW job_stats_summary")
    different = sample_database.value(
        "SELECT count(*) FROM job_stats_summary AS s"
        "  JOIN (SELECT employer_id, count(*) AS n, avg(views_count) AS v FROM jobs GROUP BY 1) AS j"
        " USING (employer_id) WHERE (s.total_jobs, s.avg_views) IS DISTINCT FROM (j.n, j.v)"
    )
    assert different == 0


def test_the_second_view_was_never_populated_and_reads_the_first_through_a_plain_one(
    sample_database: Database,
) -> None:
    with pytest.raises(QueryFailed, match="has not been populated"):
        sample_database.rows("SELECT * FROM company_hiring_summary")
    sample_database.execute("REFRESH MATERIALIZED VIEW job_stats_summary")
    sample_database.execute("REFRESH MATERIALIZED VIEW company_hiring_summary")
    sample_database.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY company_hiring_summary")
    assert sample_database.value(
        "SELECT sum(total_applications) FROM company_hiring_summary"
    ) == sample_database.value("SELECT count(*) FROM job_applications")


def test_exactly_one_required_index_is_missing_although_alembic_is_at_head(sample_database: Database) -> None:
    present = {row["indexname"] for row in sample_database.rows(INDEX_NAMES)}
    assert set(REQUIRED_INDEXES) - present == {PLANTED.missing_index}
    assert schema.current(sample_database.login) == schema.head()


def test_what_was_made_is_reported(seeded: tuple[Database, Seeded], server: Server) -> None:
    database, made = seeded
    assert made.rows["job_applications"] == 45_000
    assert made.rows["sessions"] == 30_000
    assert made.rows["jobs"] == 6_000
    assert made.pgstattuple == server.contrib
    assert made.size_bytes == pytest.approx(
        database.value("SELECT pg_database_size(current_database())"), rel=0.05
    )


@pytest.mark.any_server
def test_the_same_seed_gives_the_same_rows_and_another_one_does_not(server: Server) -> None:
    prints = []
    for number in (1, 1, 2):
        with private_database(server) as database:
            seed(database.login, scale=0.001, seed=number, now=NOW)
            prints.append(fingerprint(database.login))
    first, again, other = prints
    assert first == again
    assert all(first[table] != other[table] for table in TABLES)


def test_expiry_is_relative_to_the_servers_clock(server: Server) -> None:
    with private_database(server) as database:
        seed(database.login, scale=0.001)
        closest = database.value("SELECT min(abs(extract(epoch FROM expires - now()))) FROM sessions")
        newest = database.value("SELECT max(expires) - now() FROM sessions")
    assert closest > 3600 - 60
    assert timedelta(days=25) < newest < timedelta(days=40)


def test_the_sample_refuses_a_database_that_is_not_empty(sample_database: Database) -> None:
    with pytest.raises(PreconditionError, match="is not empty"):
        seed(sample_database.login, scale=0.001)


@pytest.mark.any_server
def test_the_sample_refuses_a_scale_that_is_too_small(database: Database) -> None:
    with pytest.raises(PreconditionError, match=r"at least 0\.001"):
        seed(database.login, scale=0.0001)


def test_the_schema_can_be_taken_down_and_built_again_revision_by_revision(database: Database) -> None:
    schema.upgrade(database.login)
    assert set(REQUIRED_INDEXES) <= {row["indexname"] for row in database.rows(INDEX_NAMES)}
    schema.downgrade(database.login)
    assert (
        database.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'v', 'm') AND relname NOT LIKE 'alembic%%'"
            " AND relname NOT LIKE 'pgstat%%'",
            {},
        )
        == []
    )
    for revision in schema.revisions():
        schema.upgrade(database.login, revision)
        assert schema.current(database.login) == revision


def test_the_critical_indexes_can_be_taken_back_where_one_of_them_is_missing(
    sample_database: Database,
) -> None:
    schema.downgrade(sample_database.login, schema.BEFORE_CRITICAL_INDEXES)
    assert not set(REQUIRED_INDEXES) & {row["indexname"] for row in sample_database.rows(INDEX_NAMES)}
    schema.upgrade(sample_database.login)
    assert set(REQUIRED_INDEXES) <= {row["indexname"] for row in sample_database.rows(INDEX_NAMES)}


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(
            "INSERT INTO job_applications (job_id, candidate_id)"
            " SELECT job_id, candidate_id FROM job_applications WHERE status = 'applied' LIMIT 1",
            id="a-second-application",
        ),
        pytest.param("UPDATE job_applications SET status = 'lost' WHERE id = 5", id="an-unknown-status"),
        pytest.param("UPDATE jobs SET salary_min = 2, salary_max = 1 WHERE id = 1", id="a-salary-range"),
        pytest.param(
            "UPDATE jobs SET posted_at = now(), expires_at = now() - interval '1 day' WHERE id = 1",
            id="dates",
        ),
        pytest.param(
            "INSERT INTO accounts (user_id, type, provider, provider_account_id)"
            " SELECT user_id, type, provider, provider_account_id FROM accounts LIMIT 1",
            id="an-account-twice",
        ),
    ],
)
def test_the_guides_constraints_hold(sample_database: Database, statement: Any) -> None:
    with pytest.raises(QueryFailed, match=r"SQLSTATE 23(505|514)"):
        sample_database.execute(statement)


def test_a_rejected_candidate_may_apply_again(sample_database: Database) -> None:
    again = sample_database.execute(
        "INSERT INTO job_applications (job_id, candidate_id)"
        " SELECT job_id, candidate_id FROM job_applications WHERE status = 'rejected' LIMIT 1"
    )
    assert again == 1


def test_a_person_can_fill_a_database_of_their_own(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with private_database(server) as database:
        monkeypatch.setenv("PGPASSWORD", database.password or "")
        assert main(["--conninfo", database.conninfo, "--scale", "0.001"]) == 0
        output = capsys.readouterr()
        assert "sessions                 1,000 rows" in output.out
        assert PLANTED.missing_index in output.out
        assert (database.password or "no password") not in output.out + output.err
        assert main(["--conninfo", database.conninfo, "--scale", "0.001"]) == 1
        assert "is not empty" in capsys.readouterr().err


def test_an_owner_without_further_rights_gets_the_sample_without_the_extension(server: Server) -> None:
    with private_database(server) as database:
        role, password = f"owner_{database.dbname}", "p4ssw0rd of the owner"
        with database.connect() as connection:
            connection.execute(
                compose("CREATE ROLE {} LOGIN PASSWORD {}", identifier(role), literal(password))
            )
            connection.execute(
                compose("ALTER DATABASE {} OWNER TO {}", identifier(database.dbname), identifier(role))
            )
        try:
            login = Login(make_conninfo(database.conninfo, user=role), password)
            made = seed(login, scale=0.001)
            assert made.rows["sessions"] == 1_000
            assert not made.pgstattuple
        finally:
            server.drop(database.dbname)
            with server.connect() as connection:
                connection.execute(compose("DROP ROLE {}", identifier(role)))
