from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pgsteward import config, config_stores, places
from pgsteward.config import Config, Secret
from pgsteward.errors import ConfigError
from pgsteward.postgres import Login
from pgsteward.targets import Target, load_target

GOOD = """
state_url = "sqlite:///state.db"

[stores.disk]
url = "file:///var/backups/pg"
[stores.s3]
url = "s3://acme-backups/night"
endpoint_url = "http://127.0.0.1:9000"
region = "us-east-1"
access_key_id = { env = "S3_KEY" }
secret_access_key = { env = "S3_SECRET" }

[targets.app]
conninfo = "host=127.0.0.1 port=5432 dbname=intowork user=steward"
password = { env = "APP_PASSWORD" }
stores = ["disk", "s3"]
client_dirs = []
[targets.app.backup]
jobs = 2
compress = "zstd:1"
proof = "full"
[targets.app.retention]
keep_last = 3
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
keep_min = 2
[[targets.app.sessions]]
table = "public.sessions"
expires = "expires"
[targets.app.index_bloat]
min_ratio = 0.4
min_reclaimable = "50MB"
[targets.app.analyze]
[targets.app.matviews]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "pgsteward.toml"
    file.write_text(text)
    return file


def load_changed(folder: Path, old: str, new: str) -> Config:
    assert old in GOOD
    return config.load(write(folder, GOOD.replace(old, new)))


def test_the_shape_in_the_readme_is_understood(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD))
    target = loaded.target("app")
    assert target.stores == ("disk", "s3")
    assert target.index_bloat.min_reclaimable == 50_000_000
    assert target.sessions[0].expires == "expires"
    assert loaded.stores["s3"].bucket == "acme-backups"
    assert loaded.stores["s3"].path == "night"
    assert loaded.stores["disk"].path == "/var/backups/pg"


def test_a_relative_state_file_lies_beside_the_configuration(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, GOOD)).resolved_state_url() == f"sqlite:///{tmp_path}/state.db"


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        pytest.param("jobs = 2", "jbos = 2", "targets.app.backup.jbos", "did you mean 'jobs'?", id="typo"),
        pytest.param("jobs = 2", "jobs = 0", "targets.app.backup.jobs", "1 or more", id="zero"),
        pytest.param(
            "jobs = 2",
            "lock_wait_timeout_s = 3_000_000",
            "targets.app.backup.lock_wait_timeout_s",
            "2147483 or less",
            id="longer-than-a-timeout-can-be",
        ),
        pytest.param(
            'password = { env = "APP_PASSWORD" }',
            'password = { literal = "hunter2" }',
            "targets.app.password",
            "{ env =",
            id="literal-secret",
        ),
        pytest.param(
            'password = { env = "APP_PASSWORD" }',
            'password = "hunter2"',
            "targets.app.password",
            "{ env =",
            id="plain-secret",
        ),
        pytest.param(
            "user=steward",
            "user=steward password=hunter2",
            "targets.app.conninfo",
            "take the password out",
            id="password-in-conninfo",
        ),
        pytest.param(
            '"host=127.0.0.1 port=5432 dbname=intowork user=steward"',
            '"postgresql://steward:hunter2@127.0.0.1/intowork"',
            "targets.app.conninfo",
            "take the password out",
            id="password-in-uri",
        ),
        pytest.param(
            "http://127.0.0.1", "http://10.0.0.1", "stores.s3.endpoint_url", "https", id="clear-text"
        ),
        pytest.param('"disk", "s3"', '"disk", "s4"', "targets.app.stores", "disk, s3", id="unknown-store"),
        pytest.param(
            'url = "s3://acme-backups/night"\nendpoint_url = "http://127.0.0.1:9000"\nregion = "us-east-1"\n'
            'access_key_id = { env = "S3_KEY" }\nsecret_access_key = { env = "S3_SECRET" }',
            'url = "file:///var/./backups//pg/"',
            "targets.app.stores",
            "the same place",
            id="one-folder-twice",
        ),
        pytest.param(
            "s3://acme-backups/night", "s3://acme-backups/night#1", "stores.s3.url", "s3://", id="fragment"
        ),
        pytest.param(
            "[stores.disk]",
            f"[stores.{'a' * 101}]\nurl = 'file:///a'\n[stores.disk]",
            "stores",
            "at most 100",
            id="long-name",
        ),
        pytest.param(
            "file:///var", "file://var", "stores.disk.url", "file:///absolute", id="relative-folder"
        ),
        pytest.param(
            "[targets.app.analyze]", "[targets.app.analyse]", "targets.app.analyse", "'analyze'", id="section"
        ),
        pytest.param('"public.sessions"', '"a.b.c"', "targets.app.sessions.0.table", "too many", id="table"),
        pytest.param(
            "keep_min = 2", 'keep_min = 2\ntime_zone = "Europe/Warsow"', "time_zone", "Warsaw", id="zone"
        ),
        pytest.param(
            'compress = "zstd:1"', 'compress = "rar"', "targets.app.backup.compress", "zstd", id="codec"
        ),
    ],
)
def test_an_error_names_the_file_the_key_and_what_to_write(
    tmp_path: Path, old: str, new: str, key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_changed(tmp_path, old, new)
    text = str(caught.value)
    assert str(tmp_path / "pgsteward.toml") in text
    assert key in text
    assert says in text
    assert "hunter2" not in text


WRONG_VALUES = [
    ('state_url = "sqlite:///state.db"', "state_url = 3", "state_url", "in quotes"),
    ('state_url = "sqlite:///state.db"', 'state_url = "state.db"', "state_url", "sqlite:///file"),
    ('state_url = "sqlite:///state.db"', 'state_url = "mysql://h/d"', "state_url", "postgresql://"),
    (
        'state_url = "sqlite:///state.db"',
        'state_url = "postgresql://h/d?password=hunter2"',
        "state_url",
        "{ env",
    ),
    ('state_url = "sqlite:///state.db"', 'state_url = { envv = "X" }', "state_url.envv", "'env'"),
    (
        '[stores.disk]\nurl = "file:///var/backups/pg"',
        '[stores]\ndisk = "/x"',
        "stores.disk",
        "[stores.disk]",
    ),
    ("s3://acme-backups", "s3://AKIA:hunter2@acme-backups", "stores.s3.url", "access_key_id"),
    ("http://127.0.0.1", "https://me:hunter2@s3.example", "stores.s3.endpoint_url", "take user and password"),
    ('access_key_id = { env = "S3_KEY" }', 'access_key_id = "hunter2"', "stores.s3.access_key_id", "{ env ="),
    ('{ env = "S3_SECRET" }', "12345", "stores.s3.secret_access_key", "{ env ="),
    ('{ env = "S3_SECRET" }', '["hunter2"]', "stores.s3.secret_access_key", "{ env ="),
    ('{ env = "S3_SECRET" }', '{ env = "" }', "stores.s3.secret_access_key.env", "is empty"),
    ("user=steward", "user=steward sslpassword=hunter2", "targets.app.conninfo", "service=NAME"),
    ("user=steward", "usr=steward", "targets.app.conninfo", "did you mean 'user'?"),
    (
        '"host=127.0.0.1 port=5432 dbname=intowork user=steward"',
        '"intowork"',
        "targets.app.conninfo",
        "as for psql",
    ),
    ("dbname=intowork user=steward", "service=night", "targets.app.conninfo", "dbname="),
    ("dbname=intowork user=steward", "service=night user=app", "targets.app.conninfo", "dbname="),
    (
        "[targets.app.analyze]",
        '[targets.app.restore]\npassword = "hunter2"',
        "targets.app.restore.password",
        "{ env",
    ),
    ('["disk", "s3"]', '"disk"', "targets.app.stores", 'stores = ["..."]'),
    ('["disk", "s3"]', "[]", "targets.app.stores", "at least one"),
    ('["disk", "s3"]', '["disk", "disk"]', "targets.app.stores", "twice"),
    ("client_dirs = []", "client_dirs = [1]", "targets.app.client_dirs.0", "in quotes"),
    ("jobs = 2", 'jobs = "2"', "targets.app.backup.jobs", "without quotes"),
    ("jobs = 2", "jobs = true", "targets.app.backup.jobs", "a whole number"),
    ("jobs = 2", "lock_wait_timeout_s = inf", "targets.app.backup.lock_wait_timeout_s", "finite"),
    ('"zstd:1"', '"zstd:99"', "targets.app.backup.compress", "zstd:22"),
    ('"full"', '"ful"', "targets.app.backup.proof", '"full", "counts" or "none"'),
    ("keep_last = 3", "keep_last = 2.5", "targets.app.retention.keep_last", "a whole number"),
    ("keep_min = 2", "keep_min = 0", "targets.app.retention.keep_min", "1 or more"),
    ("keep_min = 2", "keep_proven = 0", "targets.app.retention.keep_proven", "1 or more"),
    ("keep_min = 2", 'keep_within = "2w"', "targets.app.retention.keep_within", "a week is 7d"),
    ("keep_min = 2", "keep_within_daily = 7", "targets.app.retention.keep_within_daily", "in quotes"),
    ("keep_min = 2", "orphan_days = 0", "targets.app.retention.orphan_days", "1 or more"),
    (
        "[targets.app.retention]",
        "[targets.app.store_retention.s4]\nkeep_last = 1\n[targets.app.retention]",
        "targets.app",
        "store_retention.s4: this target has no such store; it has: disk, s3",
    ),
    (
        "[targets.app.retention]",
        "[targets.app.store_retention.s3]\nkeep_min = 9\n[targets.app.retention]",
        "targets.app.store_retention.s3",
        "empty policy",
    ),
    (
        "client_dirs = []",
        'previous_clusters = ["old"]',
        "targets.app.previous_clusters.0",
        "7301234567890123456",
    ),
    ("[[targets.app.sessions]]", "[targets.app.sessions]", "targets.app.sessions", "double brackets"),
    (
        'expires = "expires"',
        'expires = "e"\nunit = "s"\ntime_zone = "UTC"',
        "targets.app.sessions.0",
        "not both",
    ),
    ("min_ratio = 0.4", "min_ratio = 40", "targets.app.index_bloat.min_ratio", "less than 1"),
    ('"50MB"', '"50 megs"', "targets.app.index_bloat.min_reclaimable", '"50MB"'),
    (
        "[targets.app.matviews]",
        '[targets.app.matviews]\nallow_exclusive = "yes"',
        "allow_exclusive",
        "true or false",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "says"), WRONG_VALUES)
def test_a_wrong_value_is_told_in_words_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str, says: str
) -> None:
    for name in ("PGDATABASE", "PGUSER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        load_changed(tmp_path, old, new)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/pgsteward.toml: ")
    assert key in line
    assert says in line
    for inner_word in ("hunter2", "Input should", "instance of", "valid tuple", "function-after"):
        assert inner_word not in line


def test_a_misspelt_key_comes_before_the_one_that_is_missing_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_changed(tmp_path, "[targets.app]\n", "[target.app]\n")
    assert "did you mean 'targets'?" in str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    "conninfo",
    [
        "host=a,b port=5432 dbname='my db' user=me options='-c geqo=off'",
        "dbname=app",
        "user=app",
        "postgresql://me@h1:1,h2:2/app?sslmode=require",
        "postgres:///app",
        "postgresql://me@h1:1,[::1]:5432/app?target_session_attrs=any",
        "postgresql://me@/app?host=/run/postgresql",
        "service=night dbname=app future_option=1",
        "host=/run/postgresql   dbname = app",
    ],
)
def test_a_conninfo_is_whatever_psql_takes(tmp_path: Path, conninfo: str) -> None:
    text = GOOD.replace("host=127.0.0.1 port=5432 dbname=intowork user=steward", conninfo)
    assert config.load(write(tmp_path, text)).target("app").conninfo == conninfo


def test_a_password_is_found_in_any_form_of_uri(tmp_path: Path) -> None:
    for uri in (
        "postgresql://me:hunter2@h1:1,[::1]:5432/app",
        "postgresql://me:hun@ter2@[::1]/app",
        "postgresql://me@[::1]/app?%70assword=hunter2",
    ):
        with pytest.raises(ConfigError, match="take the password out") as caught:
            load_changed(tmp_path, "host=127.0.0.1 port=5432 dbname=intowork user=steward", uri)
        assert "ter2" not in str(caught.value)


def test_an_empty_retention_policy_is_refused(tmp_path: Path) -> None:
    empty = "keep_last = 0\nkeep_daily = 0\nkeep_weekly = 0\nkeep_monthly = 0"
    with pytest.raises(ConfigError, match="would remove everything"):
        load_changed(tmp_path, "keep_last = 3\nkeep_daily = 7\nkeep_weekly = 4\nkeep_monthly = 6", empty)


def test_a_missing_file_and_broken_toml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pgsteward init"):
        config.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.load(write(tmp_path, "state_url = "))


def test_files_that_are_no_text_are_named_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "pgsteward.toml"
    file.write_bytes(b'state_url = "\xff"')
    with pytest.raises(ConfigError, match=r"pgsteward\.toml: is not UTF-8"):
        config.load(file)
    (tmp_path / "secret").write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text") as caught:
        Secret(file=tmp_path / "secret").resolve()
    assert "hunter2" not in str(caught.value)


def test_an_unknown_target_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'app'"):
        load_target("apps", write(tmp_path, GOOD))


def test_secrets_come_from_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    loaded = load_changed(tmp_path, '{ env = "APP_PASSWORD" }', '{ file = "pw" }')
    target = Target("app", loaded.target("app"), loaded)
    assert target.login("backup").password == "s3cret"
    assert "s3cret" not in repr(target.login("backup"))
    monkeypatch.delenv("S3_KEY", raising=False)
    with pytest.raises(ConfigError, match="S3_KEY is not set"):
        Secret(env="S3_KEY").resolve()
    monkeypatch.setattr(
        config_stores, "_secret_resolvers", {}
    )  # the flows of another test may have given one
    with pytest.raises(ConfigError, match="only a flow run"):
        Secret(prefect_secret="block").resolve()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(b"", "is empty", id="nothing"),
        pytest.param(b"\nhunter2\n", "is empty", id="an-empty-line-first"),
        pytest.param(b"hunter2\0more", "zero byte", id="binary"),
    ],
)
def test_a_file_without_a_usable_secret_is_named(tmp_path: Path, text: bytes, says: str) -> None:
    """libpq would take an empty password for none and look into .pgpass, and stop at a zero byte."""
    (tmp_path / "pw").write_bytes(text)
    with pytest.raises(ConfigError, match=f"the secret file {tmp_path}/pw .*{says}") as caught:
        Secret(file=tmp_path / "pw").resolve()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "says"), [("", "is empty"), ("hunter2\n", "line break"), ("hunter2\udce9", "not UTF-8")]
)
def test_a_variable_without_a_usable_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    monkeypatch.setenv("APP_PASSWORD", value)
    with pytest.raises(ConfigError, match=f"the environment variable APP_PASSWORD .*{says}") as caught:
        Secret(env="APP_PASSWORD").resolve()
    assert "hunter2" not in str(caught.value)


def test_a_folder_is_taken_as_it_is_written(tmp_path: Path) -> None:
    """What follows # or ? was cut off without a word, and the backups of two stores lay in one folder."""
    for folder in ("/var/my backups", "/var/100%25", "/var/a#1", "/var/a?b", "/var/ö"):
        loaded = load_changed(tmp_path, "file:///var/backups/pg", f"file://{folder}")
        assert loaded.stores["disk"].path == folder


def test_files_of_a_windows_editor_are_read(tmp_path: Path) -> None:
    """A byte order mark and CRLF are no part of a key or of a password."""
    file = tmp_path / "pgsteward.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert config.load(file).targets
    (tmp_path / "pw").write_bytes("\ufeffs3crét\r\n".encode())
    assert Secret(file=tmp_path / "pw").resolve() == "s3crét"


def test_a_home_is_known_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pw").write_text("s3cret\n")
    text = GOOD.replace('{ env = "APP_PASSWORD" }', '{ file = "~/pw" }')
    loaded = config.load(write(tmp_path, text.replace("client_dirs = []", 'client_dirs = ["~/bin"]')))
    target = Target("app", loaded.target("app"), loaded)
    assert target.login("backup").password == "s3cret"
    assert target.settings.client_dirs == (tmp_path / "bin",)
    with pytest.raises(ConfigError, match=r"client_dirs.*absolute path"):
        load_changed(tmp_path, "client_dirs = []", 'client_dirs = ["bin"]')


def test_a_place_that_is_closed_to_us_is_told_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With root's HOME in the environment another configuration would be taken, or a traceback printed."""
    real = os.stat

    def closed(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/root/"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.chdir(tmp_path)
    for name in (places.CONFIG_ENV, "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/root/of/nobody")
    monkeypatch.setattr(os, "stat", closed)
    assert places.find_config() == Path("/root/of/nobody/.config/pgsteward/pgsteward.toml")


def test_a_user_without_a_home_needs_none_for_a_configuration_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    for name in (places.CONFIG_ENV, "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    assert config.load().resolved_state_url() == f"sqlite:///{tmp_path}/state.db"
    with pytest.raises(ConfigError, match="set HOME or XDG_STATE_HOME"):
        places.state_folder()


def test_a_login_of_its_own_never_borrows_the_targets_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_PASSWORD", "app")
    loaded = load_changed(
        tmp_path, "[targets.app.backup]", '[targets.app.backup]\nconninfo = "host=standby dbname=intowork"'
    )
    target = Target("app", loaded.target("app"), loaded)
    assert target.login("backup") == Login("host=standby dbname=intowork", None)
    assert target.login("maintenance").password == "app"
    assert target.database == "intowork"


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ('databases = "app"', "targets.app.databases", 'or "*" for all'),
        ("databases = []", "targets.app.databases", "a list of names"),
        ('databases = [""]', "targets.app.databases", "a list of names"),
        ('databases = ["*"]', "targets.app.databases", "without brackets"),
        ('databases = ["a", "b", "a"]', "targets.app.databases", "'a' is in it twice"),
        ('exclude_databases = ["a"]', "targets.app", 'goes with databases = "*"'),
        ('databases = ["b"]\nexclude_databases = ["a"]', "targets.app", 'goes with databases = "*"'),
        ('databases = "*"\nexclude_databases = [""]', "targets.app.exclude_databases", "empty pattern"),
        ('databases = "*"\nexclude_databases = "a"', "targets.app.exclude_databases", "write a list"),
    ],
)
def test_wrong_databases_are_named(tmp_path: Path, line: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_changed(tmp_path, "client_dirs = []", line)
    assert f"{key}: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "conninfo",
    ["host=db port=6432 dbname=postgres user=x", "postgresql://x@db:6432/postgres?connect_timeout=7"],
)
def test_a_target_of_several_is_bound_to_one_of_them(tmp_path: Path, conninfo: str) -> None:
    loaded = load_changed(
        tmp_path,
        'conninfo = "host=127.0.0.1 port=5432 dbname=intowork user=steward"\n'
        'password = { env = "APP_PASSWORD" }',
        f'conninfo = "{conninfo}"\ndatabases = ["app", "Order Lines", "a=b \'c\'"]',
    )
    target = Target("app", loaded.target("app"), loaded)
    assert target.has_several
    assert target.scope == "app, Order Lines, a=b 'c'"
    with pytest.raises(ConfigError, match="--database NAME"):
        _ = target.database
    assert target.login("backup") == Login(conninfo)
    for name in target.settings.databases or ():
        bound = Target("app", target.settings, loaded, name)
        assert not bound.has_several
        assert bound.database == bound.scope == bound.login("backup").dbname == name
        assert bound.login("maintenance").endpoints == frozenset({"db:6432"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("host=localhost dbname=a", "host=/run/postgresql dbname=b", True),
        ("dbname=a", "postgresql://127.0.0.1/b", True),
        ("host=localhost port=5433 dbname=a", "host=localhost dbname=b", False),
        ("host=DB.example dbname=a", "host=db.example port=5432 dbname=b", True),
        ("host=one,two port=1,2 dbname=a", "host=two port=2 dbname=b", True),
        ("host=one,two port=1,2 dbname=a", "host=two port=1 dbname=b", False),
        ("service=x dbname=a", "service=x dbname=b", True),
        ("service=x dbname=a", "host=x dbname=b", False),
    ],
)
def test_the_same_server_is_told_by_host_and_port(
    monkeypatch: pytest.MonkeyPatch, one: str, other: str, same: bool
) -> None:
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    assert bool(Login(one).endpoints & Login(other).endpoints) is same
