"""What the documentation says about keys and commands is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from pgsteward import config
from pgsteward.cli import app

DOCS = Path(__file__).parents[2] / "docs"

SECTIONS: dict[str, type[config.Model]] = {
    "Secrets": config.Secret,
    "Top level": config.Config,
    "`[stores.NAME]`": config.StoreConfig,
    "`[targets.NAME]`": config.TargetConfig,
    "`[targets.NAME.maintenance]`": config.LoginConfig,
    "`[targets.NAME.restore]`": config.RestoreConfig,
    "`[targets.NAME.backup]`": config.BackupConfig,
    "`[targets.NAME.retention]`": config.RetentionConfig,
    "`[[targets.NAME.sessions]]`": config.SessionTable,
    "`[targets.NAME.index_bloat]`": config.IndexBloatConfig,
    "`[targets.NAME.index_audit]`": config.IndexAuditConfig,
    "`[targets.NAME.analyze]`": config.AnalyzeConfig,
    "`[targets.NAME.matviews]`": config.MatviewsConfig,
}


def section(title: str) -> str:
    text = (DOCS / "configuration.md").read_text()
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"docs/configuration.md has no section {title}"
    return match[1]


def documented(title: str) -> dict[str, str]:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section(title), re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented_and_no_other(title: str) -> None:
    fields = set(SECTIONS[title].model_fields)
    if SECTIONS[title] is config.BackupConfig:
        fields -= set(config.LoginConfig.model_fields)  # said in words there
    assert set(documented(title)) == fields


def test_every_model_has_its_section() -> None:
    models = {
        found
        for found in vars(config).values()
        if isinstance(found, type) and issubclass(found, config.Model) and found is not config.Model
    }
    assert models == set(SECTIONS.values())


@pytest.mark.parametrize("title", [t for t, m in SECTIONS.items() if m is not config.Secret])
def test_every_default_is_the_documented_one(title: str) -> None:
    rows = documented(title)
    for name, info in SECTIONS[title].model_fields.items():
        if name not in rows:
            continue
        if info.is_required():
            assert rows[name] == "required"
        elif rows[name].startswith("`"):
            assert rows[name] == f"`{as_toml(name, info.default)}`"
        else:
            assert info.default is PydanticUndefined or not isinstance(info.default, int | float | str)


def as_toml(name: str, value: Any) -> str:
    if name == "min_reclaimable":
        return f'"{value // 1_000_000}MB"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_the_examples_in_the_configuration_page_are_valid(tmp_path: Path) -> None:
    for number, example in enumerate(
        re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    ):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        config.load(file)


def test_every_command_is_on_its_page() -> None:
    page = (DOCS / "cli.md").read_text()
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(re.findall(r"^\| `(\w+)", page, re.MULTILINE)) >= commands
