"""What an audit is told: required indexes, constraints, migrations, replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgsteward import config
from pgsteward.config import IndexAuditConfig, RequiredIndex
from pgsteward.errors import ConfigError

HEAD = """
[stores.disk]
url = "file:///var/backups"
[targets.app]
conninfo = "dbname=app"
stores = ["disk"]
"""


def load(folder: Path, text: str) -> IndexAuditConfig:
    file = folder / "pgsteward.toml"
    file.write_text(f"{HEAD}[targets.app.index_audit]\n{text}")
    return config.load(file).target("app").index_audit


def test_names_and_tables_stand_side_by_side(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        required = ["a_key", { table = 'app."Jobs"', columns = ["lower(title)", "id DESC"], where = "b" }]
        replicas = ["host=a", { conninfo = "host=b", password = { env = "B" } }]
        [[targets.app.index_audit.constraints]]
        table = "jobs"
        check = "a < b"
        """,
    )
    name, index = found.required
    assert name == "a_key"
    assert isinstance(index, RequiredIndex)
    assert index.label == 'app."Jobs" (lower(title), id DESC) WHERE b'
    assert found.replicas is not None
    assert [replica.conninfo for replica in found.replicas] == ["host=a", "host=b"]
    assert found.constraints[0].label == "jobs CHECK (a < b)"
    assert load(tmp_path, "").replicas is None
    assert load(tmp_path, "replicas = []").replicas == ()


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ('required = ["a b"]', "required.0", "is not a name"),
        ("required = [7]", "required.0", "write a text in quotes"),
        ('required = [{ tabel = "x", columns = ["a"] }]', "required.0.tabel", "did you mean 'table'?"),
        ('required = [{ table = "x", columns = [] }]', "required.0.columns", "name at least one"),
        (
            'required = [{ table = "a.x", columns = ["a"], name = "b.y" }]',
            "required.0",
            "schema of its table",
        ),
        (
            'required = [{ table = "x", columns = ["a"], nulls_not_distinct = true }]',
            "required.0",
            "unique = true",
        ),
        ('replicas = ["host=a password=x"]', "replicas.0.conninfo", "take the password out"),
        ('alembic = { script_location = "alembic" }', "alembic.script_location", "write an absolute path"),
        ("constraints = { x = 1 }", "constraints", "in double brackets"),
        ('constraints = [{ table = "x" }]', "constraints.0", "give one of check, unique"),
        ('constraints = [{ table = "x", check = "a", not_null = "b" }]', "constraints.0", "give one of"),
        ('constraints = [{ table = "x", foreign_key = ["a"] }]', "constraints.0", "go together"),
        (
            'constraints = [{ table = "x", foreign_key = ["a"], references = "y",'
            ' references_columns = ["a", "b"] }]',
            "constraints.0",
            "as many as",
        ),
        ("min_observed_days = -1", "min_observed_days", "0 or more"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(tmp_path: Path, text: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert f"targets.app.index_audit.{key}: " in str(raised.value)
    assert says in str(raised.value)


@pytest.mark.parametrize("location", ["/srv/app/alembic", "app.db:migrations", "pkg:a/b"])
def test_scripts_lie_in_a_folder_or_a_package(location: str) -> None:
    settings: Any = {"alembic": {"script_location": location}}
    found = IndexAuditConfig.model_validate(settings)
    assert found.alembic is not None
    assert found.alembic.script_location == location
