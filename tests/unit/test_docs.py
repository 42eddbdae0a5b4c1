"""What the documentation says about keys and commands is what the code has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import ByteSize
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
    "`[targets.NAME.drill]`": config.DrillConfig,
    "`[targets.NAME.backup]`": config.BackupConfig,
    "`[targets.NAME.retention]`": config.RetentionConfig,
    "`[[targets.NAME.sessions]]`": config.SessionTable,
    "`[targets.NAME.vacuum]`": config.VacuumConfig,
    "`[targets.NAME.index_bloat]`": config.IndexBloatConfig,
    "`[targets.NAME.reindex]`": config.ReindexConfig,
    "`[targets.NAME.index_audit]`": config.IndexAuditConfig,
    "Each of `required`": config.RequiredIndex,
    "Each of `replicas`": config.ReplicaConfig,
    "`[[targets.NAME.index_audit.constraints]]`": config.RequiredConstraint,
    "`[targets.NAME.index_audit.alembic]`": config.AlembicConfig,
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
    if isinstance(value, ByteSize):
        return f'"{value // 10**9}GB"' if value >= 10**9 else f'"{value // 10**6}MB"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value)


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
EXAMPLES = [
    pytest.param(example, id=f"{page.name}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_a_configuration_is_valid(example: str) -> None:
    """A part of a file is completed with what it leaves out, and nothing else."""
    data = tomllib.loads(example)
    stores = data.setdefault("stores", {})
    for target in data.get("targets", {}).values():
        target.setdefault("conninfo", "dbname=app")
        for name in target.setdefault("stores", ["disk"]):
            stores.setdefault(name, {"url": "file:///backups"})
    config.Config.model_validate(data)


def test_there_are_examples_to_look_at() -> None:
    assert len(EXAMPLES) >= 8


def test_every_command_is_on_its_page() -> None:
    page = (DOCS / "cli.md").read_text()
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(re.findall(r"^\| `([\w-]+)", page, re.MULTILINE)) >= commands


def test_every_option_of_a_command_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    options = {
        option
        for command in typer.main.get_group(app).commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    }
    assert [option for option in sorted(options) if option not in pages] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)]+)\)", page.read_text()):
        there = ((page.parent / path) if path else page).read_text()
        headings = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", there, re.MULTILINE)
        }
        assert anchor in headings, f"{path}#{anchor}"


def test_every_page_is_linked_from_another() -> None:
    for page in PAGES[1:]:
        others = "".join(other.read_text() for other in PAGES if other != page)
        assert f"{page.name})" in others or f"{page.name}#" in others, page.name
