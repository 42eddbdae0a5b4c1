"""Looks at everything that a night needs, before the night: each finding comes with what to do about it.

Nothing is changed, but for the objects of each store's self-test, which are removed again.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pgsteward import results
from pgsteward.errors import ConfigError, StewardError, StoreUnavailable
from pgsteward.progress import Progress, silent
from pgsteward.results import Note, StepResult
from pgsteward.storage import Store, selftest
from pgsteward.targets import Target

STEP = "doctor"
CheckStatus = Literal["ok", "warn", "fail", "unknown", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, or could not be.

    Attributes:
        check: Its name.
        status: ``fail``: some step of the night will not work; ``warn``: it works, and may hurt later;
            ``unknown``: it could not be looked at; ``skipped``: it is not used here.
        message: What was found.
        fix: What to do about it, ready to be copied; empty when nothing is to be done.
    """

    check: str
    status: CheckStatus
    message: str
    fix: str = ""


def examine(target: Target, *, progress: Progress = silent) -> StepResult:
    """Check one target and everything around it.

    Returns:
        Status ``failed`` when something will not work, ``partial`` when something could not be looked at;
        warnings leave it ``ok``. ``details["checks"]`` has every check.
    """
    from pgsteward.doctor_database import check_databases

    started = time.monotonic()
    parts: Sequence[tuple[str, Callable[[Target], Iterator[Check]]]] = (
        ("configuration", _configuration),
        ("database", check_databases),
        ("stores", _stores),
        ("encryption", _encryption),
        ("state", _state),
        ("Prefect", _prefect),
    )
    checks: list[Check] = []
    for done, (what, part) in enumerate(parts):
        progress(f"checking {what}", done, len(parts))
        try:
            checks += part(target)
        except StewardError as exc:  # the other parts must get their turn
            checks.append(Check(what, "fail", str(exc)))
    return _result(target, checks).took(time.monotonic() - started)


def _result(target: Target, checks: Sequence[Check]) -> StepResult:
    def notes(status: CheckStatus) -> tuple[Note, ...]:
        return tuple(Note(c.check, c.message) for c in checks if c.status == status)

    failed, unknown, skipped, warned = notes("fail"), notes("unknown"), notes("skipped"), notes("warn")
    examined = len(checks) - len(unknown) - len(skipped)
    counts = {
        "fine": examined - len(failed) - len(warned),
        "to mind": len(warned),
        "wrong": len(failed),
        "unknown": len(unknown),
        "not used here": len(skipped),
    }
    return StepResult(
        step=STEP,
        target=target.name,
        status="failed" if failed else results.judge(examined=examined, unknown=unknown),
        examined=examined,
        skipped=skipped,
        unknown=unknown,
        failed=failed,
        summary=f"{len(checks)} checks: "
        + ", ".join(f"{number} {word}" for word, number in counts.items() if number),
        details={"checks": [asdict(check) for check in checks]},
    )


def _configuration(target: Target) -> Iterator[Check]:
    names = len(target.config.targets)
    yield Check("configuration", "ok", f"read; {names} target{'s' if names != 1 else ''}")
    for purpose in ("backup", "maintenance", "restore"):
        try:
            target.login(purpose)
        except ConfigError as exc:
            yield Check(f"secret for {purpose}", "fail", str(exc))


def _stores(target: Target) -> Iterator[Check]:
    fine = []
    for name in target.settings.stores:
        checks = list(_test_store(target, name))
        yield from checks
        if all(check.status != "fail" for check in checks):
            fine.append(name)
    from pgsteward.backup.home import has_spool, home_store

    home = home_store(target)
    if has_spool(target) and target.settings.backup.form == "directory":
        yield Check(
            "spool",
            "ok",
            f"no file:// store: dumps are written to {home.location} and removed once they are uploaded",
        )
    yield from _same_places(target, fine)
    yield from _free_space(target, home)


def _same_places(target: Target, stores: Sequence[str]) -> Iterator[Check]:
    """Name the stores that are one place: what one's retention keeps there, the other's may remove."""
    from pgsteward.backup.identity import is_same_place

    for one, other in itertools.combinations(stores, 2):
        try:
            same = is_same_place(target, target.store(one), target.store(other))
        except StewardError:  # whatever it is, that store has a finding of its own
            continue
        if same:
            yield Check(
                f"store {other}",
                "fail",
                f"is the same place as store {one}: a backup in both is there only once",
                f"take one of them out of targets.{target.name}.stores",
            )


def _test_store(target: Target, name: str) -> Iterator[Check]:
    """Try out what a store does; the verdicts are also those of the next backup."""
    from pgsteward.backup.identity import identify

    what = f"store {name}"
    try:
        store = target.store(name)
        test = selftest.examine(store, target.config.stores[name], f"{target.name}/")
        if not test.bad:
            identify(target, store)
    except StewardError as exc:
        fix = "make it reachable: address, name resolution, firewall, proxy"
        yield Check(what, "fail", str(exc), fix if isinstance(exc, StoreUnavailable) else "")
        return
    counts = {word: sum(c.status == word for c in test.capabilities) for word in ("ok", "warn", "fail")}
    if test.bad:
        yield Check(what, "fail", f"{test.bad[0].name}: {test.bad[0].message}", test.bad[0].fix)
    else:
        looked = f"{counts['ok'] + counts['warn']} capabilities tried, {counts['warn']} to mind"
        yield Check(what, "ok", f"{store.location}: {looked}")
    if len(test.capabilities) > 1:
        for each in test.capabilities:
            yield Check(f"{what}: {each.name}", each.status, f"{each.verdict}: {each.message}", each.fix)


def _free_space(target: Target, home: Store) -> Iterator[Check]:
    from pgsteward import postgres
    from pgsteward.databases import find
    from pgsteward.report.units import humanize_bytes

    folder = home.local_folder("")
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder is None:
        return
    try:
        free = shutil.disk_usage(folder).free
        with postgres.connect(target.login("backup"), purpose="doctor", statement_timeout_s=30) as connection:
            size = int(connection.value("SELECT pg_database_size(current_database())"))
        if target.has_several:
            found = find(target)
            size = sum(found.sizes.get(name, 0) for name in found.names)
    except (OSError, StewardError) as exc:
        yield Check("free space", "unknown", f"{exc}")
        return
    what = "databases" if target.has_several else "a database"
    message = f"{humanize_bytes(free)} free for dumps of {what} of {humanize_bytes(size)}"
    if free < size:  # a dump is about a fifth of that, and several are kept
        yield Check("free space", "warn", message, f"give {folder} more room, or keep fewer backups there")
    else:
        yield Check("free space", "ok", message)


def _encryption(target: Target) -> Iterator[Check]:
    from pgsteward.backup.encryption import WrongIdentity, read_identities, read_recipients
    from pgsteward.spool import refuse_disk

    settings = target.settings.backup
    if not settings.encrypt_to:
        return
    try:
        recipients = read_recipients(settings.encrypt_to)
        if settings.spool is not None:
            refuse_disk(Path(settings.spool))
    except StewardError as exc:
        yield Check("encryption", "fail", str(exc))
        return
    clear = "nothing clear lies on a disk"
    if settings.plaintext_spool:
        clear = "clear files lie on disk while a backup is made, as plaintext_spool = true allows"
    yield Check("encryption", "ok", f"to {', '.join(recipients.texts)}; {clear}")
    if target.settings.restore.identity is None:
        yield Check(
            "identity", "skipped", "none is configured: this machine can't read the backups that it makes"
        )
        return
    try:
        identities = read_identities(target.settings.restore.identity.resolve_whole(), "restore.identity")
        identities.decrypted(recipients.encrypted(b"?"), "a probe")
    except WrongIdentity:
        yield Check(
            "identity",
            "warn",
            "opens older backups at most: it is of none of the recipients in encrypt_to",
            "add its public key to encrypt_to (age-keygen -y), or configure the right one for restores",
        )
    except StewardError as exc:
        yield Check("identity", "fail", str(exc))
    else:
        yield Check("identity", "ok", "opens what is encrypted to these recipients")


def _state(target: Target) -> Iterator[Check]:
    from pgsteward import state

    try:
        with state.open_history(target.config) as history:
            runs = len(history.recent(target.name, limit=1))
    except StewardError as exc:
        fix = "correct state_url; losing the state loses history, never a backup"
        yield Check("state", "fail", str(exc), fix)
        return
    yield Check("state", "ok", "can be read" if runs else "can be read; no run is in it yet")


def _prefect(target: Target) -> Iterator[Check]:
    from pgsteward.prefect_project import module_output

    if importlib.util.find_spec("prefect") is None:
        yield Check(
            "Prefect",
            "skipped",
            "Prefect is not installed here; every operation also runs from the shell",
            "for flows and the UI: pip install 'pgsteward[prefect]'",
        )
        return
    try:
        said = json.loads(module_output("check", "--exit-zero"))
    except ConfigError as exc:
        yield Check("Prefect", "skipped", str(exc))
        return
    except (StewardError, ValueError) as exc:
        yield Check("Prefect", "unknown", f"its side could not be asked: {exc}")
        return
    for entry in cast("list[dict[str, Any]]", said):
        yield Check(f"Prefect: {entry['check']}", entry["status"], entry["message"], entry.get("fix", ""))
