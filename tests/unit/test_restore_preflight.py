"""Go or no-go: what is decided without a server."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pgsteward import capacity, results
from pgsteward.errors import NoGo
from pgsteward.report import plain
from pgsteward.report.page import step_page
from pgsteward.restore import room
from pgsteward.restore.checks import Check, refuse
from pgsteward.restore.locales import collation
from pgsteward.restore.preflight import _extensions, _tablespaces
from pgsteward.restore.surroundings import Archive
from tests.unit.test_manifest import manifest

CHECKS = [
    Check("client", "go", "pg_restore 17"),
    Check("name", "no-go", "there is a database 'a' already", "choose another name for into"),
    Check("rights", "no-go", "me may not create databases", "ALTER ROLE me CREATEDB"),
]


def archive(*tablespaces: str, **options: str) -> Archive:
    return Archive(frozenset(), (), options, frozenset(tablespaces))


def test_every_no_go_is_told_with_its_fix_and_all_that_was_looked_at_is_kept() -> None:
    refuse(CHECKS[:1])
    with pytest.raises(NoGo) as caught:
        refuse(CHECKS)
    error = pickle.loads(pickle.dumps(caught.value))  # as Prefect does
    assert str(error) == (
        "the restore can't start, and nothing was changed. name: there is a database 'a' already; choose"
        " another name for into; rights: me may not create databases; ALTER ROLE me CREATEDB"
    )
    result = results.failure("restore", "app", error)
    assert result.as_json()["error"] == "PreconditionError"
    assert result.as_json()["preflight"][1] == {
        "check": "name",
        "verdict": "no-go",
        "says": "there is a database 'a' already",
        "fix": "choose another name for into",
    }


def test_the_report_of_a_no_go_is_a_table_with_the_fixes() -> None:
    with pytest.raises(NoGo) as caught:
        refuse(CHECKS)
    printed = plain.render(step_page(results.failure("restore", "app", caught.value)))
    row = next(line for line in printed.splitlines() if line.strip().startswith("name "))
    assert "no-go" in row
    assert "choose another name for into" in row
    assert any(line.split()[:2] == ["client", "go"] for line in printed.splitlines())


@pytest.mark.parametrize(
    "options, there, server, go",
    [
        ({"LC_COLLATE": "C"}, None, {"libc_version": None}, "go"),
        ({"LOCALE": "C.UTF-8"}, None, {"libc_version": None}, "go"),
        ({"LOCALE": "POSIX"}, None, {"libc_version": "2.36"}, "go"),
        ({"LOCALE_PROVIDER": "builtin", "LOCALE": "C.UTF-8"}, "1", {"libc_version": None}, "go"),
        ({"LOCALE": "de_DE.UTF-8"}, "2.36", {"libc_version": "2.36"}, "go"),
        ({"LOCALE": "de_DE.UTF-8"}, "2.27", {"libc_version": "2.36"}, "warning"),
        ({"LOCALE": "de_DE.UTF-8"}, None, {"libc_version": "2.36"}, "unknown"),
        ({"LOCALE": "de_DE.UTF-8"}, "2.36", {"libc_version": None}, "unknown"),
        ({"LOCALE": "Cs_CZ.UTF-8"}, "2.27", {"libc_version": "2.36"}, "warning"),
        ({"LOCALE_PROVIDER": "icu", "ICU_LOCALE": "de"}, "153.1", {"icu_versions": {"de": "153.1"}}, "go"),
        ({"LOCALE_PROVIDER": "icu", "ICU_LOCALE": "de"}, "153.1", {"icu_versions": {"de": "9"}}, "warning"),
        ({"LOCALE_PROVIDER": "icu", "ICU_LOCALE": "de"}, "153.1", {"icu_versions": {}}, "unknown"),
    ],
)
def test_what_sorts_text_is_compared(
    options: dict[str, str], there: str | None, server: dict[str, object], go: str
) -> None:
    made = manifest()
    made = made.model_copy(update={"server": made.server.model_copy(update={"collation_version": there})})
    check = collation(made, archive(**options), server)
    assert check.go == go
    assert bool(check.fix) == (go == "warning")


def test_tablespaces_that_are_missing_are_named() -> None:
    server = {"tablespaces": {"pg_default": True, "fast": True}}
    assert _tablespaces(archive("fast"), server, left_out=False).go == "go"
    check = _tablespaces(archive("fast", "Slow one"), server, left_out=False)
    assert (check.go, check.says) == ("no-go", 'this server lacks "Slow one"')
    assert "--no-tablespaces" in check.fix
    assert _tablespaces(archive("Slow one"), server, left_out=True).go == "go"


def test_a_database_is_replaced_where_it_is() -> None:
    server = {"tablespaces": {"pg_default": False, "Slow one": False}, "role_name": "steward"}
    check = _tablespaces(archive(), server, left_out=True, home="Slow one")
    assert (check.go, check.fix) == ("no-go", 'GRANT CREATE ON TABLESPACE "Slow one" TO steward')
    assert _tablespaces(archive(), server, left_out=True, home="pg_default").go == "go"


def test_an_extension_of_one_database_alone_is_refused_before_anything_is_loaded() -> None:
    server = {
        "extensions": {"pg_cron": "1.4", "citext": "1.6"},
        "superuser_extensions": [],
        "is_superuser": True,
    }
    made = manifest().model_copy(update={"extensions": {"pg_cron": "1.4", "citext": "1.6"}})
    check = _extensions(made, archive(), server)
    assert check.go == "no-go"
    assert "cron.database_name" in check.says
    assert "--schema" in check.fix
    assert (
        _extensions(made.model_copy(update={"extensions": {"citext": "1.6"}}), archive(), server).go == "go"
    )


@pytest.mark.parametrize(
    "free, go",
    [
        pytest.param({"data": 100, "other": 100}, "go", id="each-has-room-for-all"),
        pytest.param({"data": 10, "other": 99}, "warning", id="together-they-have"),
        pytest.param({"data": 10, "other": 89}, "no-go", id="together-they-have-not"),
    ],
)
def test_tablespaces_on_other_disks_count_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: dict[str, int], go: str
) -> None:
    other = Path("/proc")  # surely another file system
    monkeypatch.setattr(
        capacity, "free_bytes", lambda folder: (free["other" if folder == other else "data"], folder)
    )
    server = {
        "data_directory": str(tmp_path),
        "same_machine": True,
        "tablespace_folders": {"pg_default": "", "Far one": str(other)},
    }
    made = manifest(database_bytes=100)
    (check,) = room.examine(made, server, None, tablespaces=["Far one"])
    assert check.go == go
    (check,) = room.examine(made, server, None)
    assert check.go == ("go" if free["data"] >= 100 else "no-go")
    (check,) = room.examine(made, server, None, home="Far one")
    assert check.go == ("go" if free["other"] >= 100 else "no-go")
    (check,) = room.examine(made, {**server, "same_machine": False}, None)
    assert check.go == "unknown"
