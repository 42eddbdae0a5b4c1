"""Connecting: what a conninfo may be, and which refusals heal by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsteward import postgres
from pgsteward.errors import ConfigError, DatabaseUnavailable, PreconditionError
from pgsteward.postgres import Login, as_written, compose, connect, identifier, literal, raw
from tests.servers import Database


@pytest.fixture(autouse=True)
def no_settings_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGDATABASE", "PGUSER", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("conninfo", "dbname"),
    [
        ("dbname=app user=joe", "app"),
        ("postgresql://joe@db.example:5433/Order%20Lines?sslmode=require", "Order Lines"),
        ("host=db.example user=joe", "joe"),
        ("service=night dbname=app", "app"),
    ],
)
def test_a_login_knows_its_database(conninfo: str, dbname: str) -> None:
    assert Login(conninfo).dbname == dbname
    assert Login(Login(conninfo).to("o'ther =db").conninfo).dbname == "o'ther =db"


@pytest.mark.parametrize(
    ("conninfo", "words"),
    [
        pytest.param("service=night", "add dbname=", id="only-the-service-file-knows"),
        pytest.param("host=db.example", "add dbname=", id="nobody-knows"),
        pytest.param("app", "can't be read", id="no-conninfo"),
    ],
)
def test_a_conninfo_without_a_database_is_a_configuration_error(conninfo: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _ = Login(conninfo).dbname


def test_the_environment_chooses_as_it_does_for_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATABASE", "shop")
    assert Login("host=db.example user=joe").dbname == "shop"


def test_a_service_file_and_several_hosts_lead_to_one_server(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = conninfo_to_dict(database.conninfo)
    services = tmp_path / "services.conf"
    services.write_text(f"[night]\nhost={parts['host']}\nport={parts['port']}\nuser={parts['user']}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    several = f"{database.conninfo} host={parts['host']},{parts['host']} port=1,{parts['port']}"
    for conninfo in (f"service=night dbname={database.dbname}", several):
        with connect(Login(conninfo, database.password), purpose="test") as session:
            pinned = conninfo_to_dict(session.pinned().conninfo)
            assert (pinned["host"], pinned["port"]) == (parts["host"], str(parts["port"]))
            assert session.pinned().dbname == database.dbname
            with connect(session.pinned(), purpose="test") as again:
                assert again.dbname == database.dbname


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("sslmode=require", id="no-tls-there"),
        pytest.param("sslmode=wrong", id="no-such-mode"),
        pytest.param("service=nowhere", id="no-such-service"),
        pytest.param("dbname=nowhere", id="no-such-database"),
        pytest.param("user=nobody", id="no-such-role"),
    ],
)
def test_what_never_heals_is_refused_for_good(database: Database, change: str) -> None:
    if change == "sslmode=require" and database.value("SELECT current_setting('ssl')") == "on":
        pytest.skip("this server speaks TLS")
    with pytest.raises(PreconditionError):
        connect(Login(f"{database.conninfo} {change}", database.password), purpose="test")


@pytest.mark.parametrize("change", ["port=1", "host=/nonexistent", "host=nowhere.invalid"])
def test_a_server_that_does_not_answer_may_come_back(database: Database, change: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        connect(Login(f"{database.conninfo} {change}", database.password), purpose="test")


def test_a_session_that_may_only_read_says_where_that_comes_from(database: Database) -> None:
    with (
        database.connect(settings={"default_transaction_read_only": "on"}) as connection,
        pytest.raises(DatabaseUnavailable, match=r"default_transaction_read_only is on: .*PGOPTIONS"),
    ):
        connection.execute("CREATE TABLE t ()")


def test_a_database_closed_to_everybody_is_refused_for_good(database: Database) -> None:
    name = postgres.identifier(database.dbname)
    with database.server.connect() as admin:
        admin.execute(postgres.compose("ALTER DATABASE {} ALLOW_CONNECTIONS false", name))
    with pytest.raises(PreconditionError, match="not currently accepting"):
        connect(database.login, purpose="test")


def test_words_that_sql_has_for_itself_are_quoted_when_they_are_names(database: Database) -> None:
    words = database.rows("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T') ORDER BY word")
    for row in words:
        assert postgres.quote_name(row["word"]) == f'"{row["word"]}"'
    assert postgres.quote_name("public", "user", "jobs") == 'public."user".jobs'


def test_a_percent_sign_is_no_parameter_in_names_values_and_expressions(database: Database) -> None:
    name = identifier('valid "100%"', "%(no)s %s %%")
    database.execute('CREATE SCHEMA "valid ""100%"""')
    for params in (None, {"factor": 2}):
        with database.connect() as connection:
            connection.execute(compose("DROP TABLE IF EXISTS {}", name))
            connection.execute(compose("CREATE TABLE {} ({} int)", name, identifier("a%b")))
            times = raw("%(factor)s::int") if params else raw("2")
            connection.execute(compose("INSERT INTO {} VALUES ({} * 3)", name, times), params)
            query = compose(
                "SELECT {} AS twice, {} AS half, {} AS rest, {} AS signs FROM {} WHERE {} = 2",
                identifier("a%b"),
                literal("50%"),
                as_written("10 % 7"),
                compose("{}", as_written("repeat('%', 2)")),
                name,
                times,
            )
            assert list(connection.row(query, params).values()) == [6, "50%", 3, "%%"]


def test_the_server_speaks_english_to_whoever_may_choose(database: Database) -> None:
    role = f"Listener of {database.dbname}"
    name = identifier(role)
    login = Login(make_conninfo(database.conninfo, user=role), "x")
    database.execute(compose("ALTER DATABASE {} SET lc_messages = 'POSIX'", identifier(database.name)))
    database.execute(compose("CREATE ROLE {} LOGIN PASSWORD 'x'", name))
    try:
        with database.connect() as session:
            assert (session.value("SHOW lc_messages"), session.language) == ("C", {"lc_messages": "C"})
        with connect(login, purpose="test") as session:
            assert (session.value("SHOW lc_messages"), session.language) == ("POSIX", {})
        database.execute(compose("GRANT SET ON PARAMETER lc_messages TO {}", name))
        with connect(login, purpose="test") as session:
            assert (session.value("SHOW lc_messages"), session.language) == ("C", {"lc_messages": "C"})
    finally:
        database.execute(compose("DROP OWNED BY {name}; DROP ROLE {name}", name=name))
