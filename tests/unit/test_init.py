from __future__ import annotations

import contextlib
import json
import os
import pty
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pgsteward import config as configuration
from pgsteward.cli import app
from pgsteward.errors import ConfigError
from pgsteward.init import Answers, as_role, default_name, login_of, render, roles_sql, write_config

ROOT = Path(__file__).parents[2]

run = CliRunner()


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    answers = Answers(
        file,
        name="shop",
        conninfo="host=db dbname='Order \"Lines\"' user=steward",
        stores=("/backups", "s3://acme/night", "file:///second"),
        password_env="SHOP_PASSWORD",
    )
    written = write_config(answers)
    config = configuration.load(file)
    target = config.target("shop")
    assert written.target == "shop"
    assert target.conninfo == answers.conninfo
    assert target.stores == ("disk", "s3", "disk2")
    assert [config.stores[name].url for name in target.stores] == [
        "file:///backups",
        "s3://acme/night",
        "file:///second",
    ]
    assert target.password is not None
    assert target.password.env == "SHOP_PASSWORD"


def test_a_first_configuration_has_the_defaults_of_the_code(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    write_config(Answers(file, conninfo="dbname=app", stores=("/b",)))
    target = configuration.load(file).target("app")
    plain = configuration.TargetConfig(conninfo="dbname=app", stores=("disk",))
    assert target == plain


def test_every_line_that_is_commented_out_is_valid_when_it_is_not(tmp_path: Path) -> None:
    text = render(Answers(tmp_path / "x", name="app", conninfo="dbname=app", stores=("/b", "s3://x/y")))
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_key = bare.startswith("[") or (bare.partition(" = ")[1] and " " not in bare.partition(" = ")[0])
        lines.append(bare if is_key else line)
    (tmp_path / "all.toml").write_text("\n".join(lines))
    assert tomllib.loads("\n".join(lines))["targets"]["app"]["sessions"]
    configuration.load(tmp_path / "all.toml")


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    write_config(Answers(file, conninfo="dbname=app"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="--force overwrites it"):
        write_config(Answers(file, conninfo="dbname=app"))
    assert file.read_text() == "mine"
    write_config(Answers(file, conninfo="dbname=app"), force=True)
    assert "[targets.app]" in file.read_text()


@pytest.mark.parametrize(
    "conninfo, stores, words",
    [
        ("dbname=app password=geheim", (), "take the password out of conninfo"),
        ("dbname=app", ("ftp://host/x",), 'write "file:///absolute/folder"'),
    ],
)
def test_a_wrong_answer_leaves_nothing_behind(
    tmp_path: Path, conninfo: str, stores: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "pgsteward.toml"
    with pytest.raises(ConfigError, match=words) as caught:
        write_config(Answers(file, conninfo=conninfo, stores=stores))
    assert str(file) in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_can_be_no_folder_is_refused_in_its_own_words(tmp_path: Path) -> None:
    """It used to be an error about TOML, in a file that was not written."""
    with pytest.raises(ConfigError, match="--name 'ä b': use lower-case letters"):
        write_config(Answers(tmp_path / "pgsteward.toml", name="ä b", conninfo="dbname=app"))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        write_config(Answers(tmp_path / "none" / "pgsteward.toml", conninfo="dbname=app"))


@pytest.mark.parametrize(
    "conninfo, name",
    [
        ("dbname=app", "app"),
        ("postgresql://host/Shop", "shop"),
        ("dbname='Order Lines'", "order-lines"),
        ("dbname='äöü'", "app"),
        ("host=x", "app"),
    ],
)
def test_a_target_is_named_after_its_database(conninfo: str, name: str) -> None:
    assert default_name(conninfo) == name


def test_the_roles_are_the_same_text_in_both_places() -> None:
    head, _, text = (ROOT / "deployments" / "roles.sql").read_text().partition("\n")
    assert "pgsteward/sql/roles.sql" in head
    assert text == roles_sql()


def test_init_prints_the_roles_and_writes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    flags = ["init", "--conninfo", "dbname=app", "--store", "/b", "--yes"]
    result = run.invoke(app, ["--config", str(file), *flags])
    assert result.exit_code == 0
    assert "GRANT pg_read_all_data TO pgsteward_backup" in result.stdout
    again = run.invoke(app, ["--config", str(file), *flags])
    assert again.exit_code == 2
    forced = run.invoke(app, ["--config", str(file), *flags, "--force", "--json"])
    assert json.loads(forced.stdout)["file"] == str(file)


def test_init_asks_nobody_where_there_is_no_terminal(tmp_path: Path) -> None:
    result = run.invoke(app, ["--config", str(tmp_path / "x.toml"), "init"])
    assert result.exit_code == 2
    assert "give --conninfo and --store" in result.stderr
    flags = ["--conninfo", "dbname=app", "--store", "/b"]
    assert run.invoke(app, ["--config", str(tmp_path / "x.toml"), "init", *flags]).exit_code == 0


def test_init_answers_as_json_also_when_it_refuses(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for flags, code in ((["--json"], 2), (["--json", "--conninfo", "dbname=app", "--store", "/b"], 0)):
        result = run.invoke(app, ["--config", str(file), "init", *flags])
        assert result.exit_code == code
        said = json.loads(result.stdout)
        assert set(said) >= {
            "step",
            "target",
            "status",
            "examined",
            "changed",
            "skipped",
            "unknown",
            "seconds",
        }
    assert said["changed"] == [{"object": str(file), "action": "written"}]


@pytest.mark.parametrize(
    "conninfo, login, other",
    [
        ("host=h dbname=app user=steward", "steward", "host=h dbname=app user=pgsteward_backup"),
        ("dbname=app user='o\\'brien x'", "o'brien x", "dbname=app user=pgsteward_backup"),
        ("dbname=app", "", "dbname=app user=pgsteward_backup"),
        ("postgresql://me%40x@h:1/app", "me@x", "postgresql://pgsteward_backup@h:1/app"),
        ("postgresql:///app", "", "postgresql://pgsteward_backup@/app"),
        ("postgresql://me@h:1,[::1]:2/app?a=b", "me", "postgresql://pgsteward_backup@h:1,[::1]:2/app?a=b"),
    ],
)
def test_a_conninfo_names_a_role_and_can_be_given_another(conninfo: str, login: str, other: str) -> None:
    assert login_of(conninfo) == login
    assert as_role(conninfo, "pgsteward_backup") == other


def test_the_role_of_the_configuration_gets_what_the_three_roles_have() -> None:
    assert "login   CONSTANT name := 'o''brien';" in roles_sql("o'brien")
    assert roles_sql("pgsteward_backup") == roles_sql("") == roles_sql()


def test_init_asks_at_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    answers = ["dbname=shop user=x", "", f"{tmp_path}/backups s3://acme/night", "y", ""]
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "pgsteward.cli", "--config", str(file), "init"]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        with contextlib.suppress(OSError):  # the other end is closed
            while os.read(ours, 65536):
                pass
    os.close(ours)
    assert child.returncode == 0
    target = configuration.load(file).target("shop")
    assert target.stores == ("disk", "s3")
    assert target.password is not None
    assert target.password.env == "SHOP_PASSWORD"
