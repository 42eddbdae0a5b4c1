"""What extensions keep for their users in tables of their own: dumped, and proven like the rest."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgsteward.backup.dump import back_up
from pgsteward.backup.proof import take_proof
from pgsteward.backup.proof_compare import compare, not_compared
from pgsteward.clients import Client
from pgsteward.postgres import compose, identifier
from pgsteward.restore.drill import drill
from pgsteward.restore.preflight import choose
from pgsteward.restore.run import restore
from pgsteward.restore.scope import Scope
from pgsteward.restore.table import restore_table
from tests.conftest import missing
from tests.integration.backup_targets import backup_folder, make_target, stored_manifest
from tests.servers import Database, Server

MADE = """
CREATE TABLE kept (id int, v text, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO kept VALUES (1, 'default');
SELECT pg_catalog.pg_extension_config_dump('kept', 'WHERE v NOT LIKE ''def%'' ');
CREATE TABLE mixed (id int, v text);
INSERT INTO mixed VALUES (1, 'default');
SELECT pg_catalog.pg_extension_config_dump('mixed', '');
CREATE TABLE own (id int);
CREATE TYPE mark AS ENUM ('a', 'b');
"""


@pytest.fixture(scope="module")
def extension(pytestconfig: pytest.Config, server: Server) -> Iterator[str]:
    """Name of an extension, in the folder where the server finds its others."""
    name = f"kept_{uuid.uuid4().hex[:12]}"
    with server.connect() as session:
        share = session.value("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'")
    files = {
        Path(share) / "extension" / f"{name}.control": "default_version = '1.0'\n",
        Path(share) / "extension" / f"{name}--1.0.sql": MADE,
    }
    try:
        for path, text in files.items():
            path.write_text(text)
            path.chmod(0o644)
    except OSError as exc:
        missing(pytestconfig, f"no extension can be added to this server: {exc}")
    yield name
    for path in files:
        path.unlink()


@pytest.fixture
def copies(database: Database) -> Iterator[str]:
    name = f"{database.name}_copy"
    yield name
    database.server.drop(name)


@pytest.fixture
def installed(database: Database, extension: str) -> Database:
    database.execute('CREATE TABLE t AS SELECT 1 AS id; CREATE SCHEMA "Ext X"')
    database.execute(compose('CREATE EXTENSION {} SCHEMA "Ext X"', identifier(extension)))
    database.execute("INSERT INTO \"Ext X\".kept VALUES (2, 'mine'), (3, 'too')")
    return database


@pytest.mark.parametrize("level", ["full", "counts"])
def test_rows_that_users_gave_an_extension_are_proven(
    installed: Database, extension: str, tmp_path: Path, copies: str, level: str
) -> None:
    installed.execute('DELETE FROM "Ext X".mixed')
    target = make_target(installed, tmp_path, backup={"proof": level})
    made = back_up(target)
    assert made.status == "ok"
    assert [note.object for note in made.skipped] == ['"Ext X".own']
    proof = stored_manifest(target, made.details["backup_id"]).proof
    assert proof.configuration is not None
    assert [(each.name, each.rows, each.extension, each.condition) for each in proof.configuration] == [
        ("kept", 2, extension, "WHERE v NOT LIKE 'def%' "),
        ("mixed", 0, extension, ""),
    ]
    assert [each.name for each in proof.relations] == ["t"]

    restored = restore(target, "latest", into=copies)
    assert restored.status == "partial"
    assert [(note.object, "makes rows itself" in note.reason) for note in restored.unknown] == [
        ('"Ext X".mixed', True)
    ]
    copy = Database(installed.server, copies)
    copy.execute('DELETE FROM "Ext X".mixed')

    def differences() -> list[str]:
        again = take_proof(copy.login, proof.level, snapshot_id=None)
        found = compare(proof.model_copy(update={"sequences": ()}), again)
        return [each.object for each in found]

    assert differences() == []
    copy.execute("INSERT INTO \"Ext X\".kept VALUES (1, 'default')")  # not a row that is dumped
    assert differences() == []
    copy.execute("UPDATE \"Ext X\".kept SET v = 'yours' WHERE id = 2")
    assert differences() == (['"Ext X".kept'] if level == "full" else [])
    copy.execute('DELETE FROM "Ext X".kept WHERE id = 2')
    assert differences() == ['"Ext X".kept']


def test_rows_that_pg_dump_cannot_tell_from_the_extensions_own_are_named_by_restore_and_drill(
    installed: Database, extension: str, tmp_path: Path, copies: str
) -> None:
    installed.execute("UPDATE \"Ext X\".mixed SET v = 'mine'; INSERT INTO \"Ext X\".mixed VALUES (2, 'own')")
    target = make_target(installed, tmp_path)
    assert back_up(target).status == "ok"
    for result in (restore(target, "latest", into=copies), drill(target, on_server=True)):
        (note,) = result.unknown
        assert note.object == '"Ext X".mixed'
        assert note.reason.startswith(
            f"has 3 rows, the backup has 2: the script of the extension {extension} makes rows itself"
        )
        assert result.details["receipt"] is None
        assert "all equal." not in result.summary
        assert "is proven" not in result.summary


def test_a_backup_of_an_older_version_says_nothing_about_rows_of_extensions(
    installed: Database, extension: str, tmp_path: Path
) -> None:
    now = take_proof(installed.login, "full", snapshot_id=None)
    before = now.model_copy(update={"configuration": None})
    assert compare(before, now) == []
    assert [name for name, _ in not_compared(before, now)] == ['"Ext X".kept', '"Ext X".mixed']
    assert not_compared(now, now) == []
    assert now.configuration is not None
    other = tuple(each.model_copy(update={"condition": "WHERE id > 1"}) for each in now.configuration[:1])
    upgraded = now.model_copy(update={"configuration": other})
    assert compare(now, upgraded) == []
    assert ["another version" in why for _, why in not_compared(now, upgraded)] == [True, True]


def test_rows_of_an_extension_can_be_left_out(installed: Database, tmp_path: Path) -> None:
    target = make_target(installed, tmp_path, backup={"exclude_table_data": ['"Ext X".mixed']})
    made = back_up(target)
    assert made.status == "ok"
    assert [note.object for note in made.skipped] == ['"Ext X".own', '"Ext X".mixed']
    proof = stored_manifest(target, made.details["backup_id"]).proof
    assert [(each.name, each.rows) for each in proof.configuration or ()] == [("kept", 2), ("mixed", None)]


def _follow(server: Server, client: Client, text: str, folder: Path, copies: str) -> None:
    """Do what RESTORE.md says about the data, in an empty database."""
    stranger = client.version[0] >= 17 > server.version
    step = text[text.index(". The data") : text.index("One table only")]
    commands = "\n".join(re.findall(r"^    ((?:psql|pg_restore) .*)$", step, re.MULTILINE))
    login = server.login.to(copies)
    if stranger:
        assert "leave out `--exit-on-error`" in step
        commands = commands.replace(" --exit-on-error", "")
    commands = re.sub(r"--dbname=\S+", lambda _: f"--dbname={shlex.quote(login.conninfo)}", commands)
    server.create(copies)
    run = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=folder,
        env={
            **os.environ,
            **login.tool_env(),
            "PATH": f"{client.folder}:{server.bin_dir}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
    )
    server.drop(copies)
    errors = [line for line in run.stderr.splitlines() if "error:" in line]
    assert all("transaction_timeout" in line for line in errors), run.stderr
    assert (run.returncode, bool(errors)) == ((1, True) if stranger else (0, False)), run.stderr


@pytest.mark.parametrize(
    "part", [{"tables": ["app.needs"]}, {"schemas": ["app"]}, {"schemas": ['"Ext X"', "app"]}]
)
def test_what_a_part_needs_of_an_extension_comes_along(
    installed: Database, extension: str, tmp_path: Path, copies: str, part: dict[str, list[str]]
) -> None:
    installed.execute("""
        CREATE EXTENSION IF NOT EXISTS plpgsql; CREATE SCHEMA app;
        CREATE TABLE app.needs (marks "Ext X".mark[], whole "Ext X".own);
        INSERT INTO app.needs VALUES ('{a}', ROW(1))""")
    target = make_target(installed, tmp_path, backup={**part, "exclude_table_data": ['"Ext X".mixed']})
    made = back_up(target)
    assert made.status == "ok", made.as_json()
    manifest = stored_manifest(target, made.details["backup_id"])
    assert [each for each in manifest.arguments if "extension" in each] == [f'--extension="{extension}"']
    text = (backup_folder(target, manifest.backup_id) / "RESTORE.md").read_text()
    assert ("CREATE SCHEMA IF NOT EXISTS" in text) is ('"Ext X"' not in part.get("schemas", []))
    with installed.connect() as session:
        client = choose(target, manifest, session.server_version)
    _follow(installed.server, client, text, backup_folder(target, manifest.backup_id), copies)
    restored = restore(target, manifest.backup_id, into=copies)
    assert restored.status == "ok", restored.as_json()
    with installed.server.connect(copies) as session:
        assert session.value('SELECT array_agg(id) FROM "Ext X".kept WHERE id > 1') == [2, 3]
        session.execute("DELETE FROM \"Ext X\".kept WHERE v = 'mine'")
        actual = take_proof(session.login, "full", snapshot_id=None)
    (difference,) = compare(manifest.proof, actual.model_copy(update={"sequences": manifest.proof.sequences}))
    assert difference.object == '"Ext X".kept'


def test_a_part_of_a_whole_backup_has_the_rows_of_its_extensions_too(
    installed: Database, extension: str, tmp_path: Path, copies: str
) -> None:
    installed.execute("CREATE TABLE needs (m \"Ext X\".mark PRIMARY KEY); INSERT INTO needs VALUES ('a')")
    target = make_target(installed, tmp_path, backup={"exclude_table_data": ['"Ext X".mixed']})
    backup_id = back_up(target).details["backup_id"]
    restored = restore(target, backup_id, into=copies, scope=Scope(tables=("needs",)))
    assert restored.status == "ok", restored.as_json()
    with installed.server.connect(copies) as session:
        assert session.value('SELECT array_agg(id) FROM "Ext X".kept WHERE id > 1') == [2, 3]
    assert restore_table(target, "needs", backup_id).details["proof"]["equal"] is True


def test_an_extension_that_nothing_chosen_needs_stays_behind(
    installed: Database, extension: str, tmp_path: Path
) -> None:
    target = make_target(installed, tmp_path, backup={"tables": ["public.t"]})
    made = back_up(target)
    assert not [
        each for each in stored_manifest(target, made.details["backup_id"]).arguments if extension in each
    ]
    said = {note.object: note.reason for note in made.skipped}
    assert said['"Ext X".kept'] == "left out by the filter"


@pytest.mark.contrib
def test_an_extension_brings_those_that_it_requires(database: Database, tmp_path: Path) -> None:
    database.execute('CREATE EXTENSION earthdistance CASCADE; CREATE TABLE "values" (place earth)')
    target = make_target(database, tmp_path, backup={"tables": ['public."values"']})
    arguments = stored_manifest(target, back_up(target).details["backup_id"]).arguments
    assert [each for each in arguments if each.startswith("--ext")] == [
        '--extension="cube"',
        '--extension="earthdistance"',
    ]
