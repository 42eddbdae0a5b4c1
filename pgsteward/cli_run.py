"""How a command runs: the configuration, signals, errors, the history, and the exit status.

0 done, 1 failed, 2 misuse or configuration, 3 done but not everything; 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from pgsteward import results
from pgsteward.cli_output import TerminalProgress, print_error, print_line, print_result
from pgsteward.cli_streams import steady
from pgsteward.errors import ConfigError, PartialFailure, StewardError
from pgsteward.progress import Progress
from pgsteward.results import EXIT_STATUS, NightResult, StepResult

if TYPE_CHECKING:
    from pgsteward.config import Config
    from pgsteward.targets import Target

log = logging.getLogger(__name__)

MISUSE = 2
_AGAIN_S = 0.05
"""After how long an exception that was swallowed is raised again: what swallowed it is over by then."""
BACKUP_WORDS = ("latest",)

TargetName = Annotated[
    str | None,
    typer.Argument(metavar="TARGET", help="Entry of \\[targets]; may be left out where there is only one."),
]
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print exactly one JSON object on standard output.")
]

Database = Annotated[
    str | None,
    typer.Option("--database", "-d", metavar="NAME", help="Only this database of a target with several."),
]
FromStore = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="STORE",
        help="Read from this store. By default the first that has it; verify reads all.",
    ),
]
BackupName = Annotated[
    str | None, typer.Argument(metavar="BACKUP", help="A backup id, latest or latest-proven.")
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="TIME",
        help="The newest backup of this moment or before: 2026-11-20T03:00Z, or +01:00 for Z; without"
        " either in the time_zone of the retention (by default UTC).",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Say what would be done and change nothing.")
]

Result = StepResult | NightResult
Operation = Callable[["Target", Progress], Result]


def run_command_line(app: Callable[..., Any]) -> None:
    """Run the command line; what it prints and how it starts and ends is seen to first."""
    steady()
    if "--json" in sys.argv:
        sys.exit(_run_for_json(app))
    app()


def _run_for_json(command: Callable[..., Any]) -> int:
    """Run the command line for a program: a misuse of it is told as one object too.

    Returns:
        The exit status.
    """
    try:
        return int(command(standalone_mode=False) or 0)
    except typer.Abort:
        return 128 + signal.SIGINT
    except Exception as exc:
        told = getattr(exc, "format_message", None)  # of click, which typer keeps to itself
        if told is None:
            raise
        where = getattr(exc, "ctx", None)
        step = where.info_name if where is not None and where.parent is not None else ""
        print_result(results.failure(step, "", ConfigError(told())), as_json=True)
        return MISUSE


class Terminated(BaseException):
    """The process was told to end (SIGTERM, or its terminal is gone); everything cleans up on its way out."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands before the command."""

    config: Path | None = None


def settings_of(ctx: typer.Context) -> Settings:
    """Return what stood before the command."""
    found = ctx.find_object(Settings)
    return found or Settings()


def run_operation(
    ctx: typer.Context,
    step: str,
    target: str | None,
    operation: Operation,
    *,
    as_json: bool,
    remember: bool = False,
    database: str | None = None,
    across: Literal["itself", "server", "stores"] = "itself",
    side_by_side: str | None = None,
    find_target: Callable[[], Target] | None = None,
) -> NoReturn:
    """Run one operation on one target, print its result and leave with its exit status.

    Args:
        ctx: Typer's context, which knows the configuration file.
        step: Name of the step, for a result that the operation can't give itself.
        target: As given; None where the configuration has exactly one.
        operation: Imports what it needs when it is called.
        as_json: Print one JSON object instead of text.
        remember: Keep the result in the history, unless it was a dry run.
        database: Only this one of a target with several.
        across: Where the databases of such a target come from; the operation may see to that ``itself``.
        side_by_side: See `pgsteward.several.over`.
        find_target: Makes the target where there is no configuration; nothing is remembered then.
    """
    config: Config | None = None
    chosen: Target | None = None
    started = time.monotonic()
    dry_run = bool(ctx.params.get("dry_run"))  # as every command that has it calls it

    def failed(error: BaseException) -> StepResult:
        name = chosen.name if chosen else target or ""
        return results.failure(step, name, error, time.monotonic() - started, dry_run=dry_run)

    result: Result
    code: int | None = None
    broke = True
    stopping = Stopping()
    try:
        with signals() as stopping, TerminalProgress(step) as progress:
            if find_target is not None:
                chosen = find_target()
            else:
                config = load_config(ctx)
                chosen = choose_target(config, target)
            if across == "itself":
                result = operation(chosen, progress)
            else:
                result = _across(
                    chosen, step, operation, database, progress, across == "stores", side_by_side
                )
            broke = False
    except ConfigError as exc:
        result, code, remember = failed(exc), MISUSE, False
    except PartialFailure as exc:
        broke = not isinstance(exc.report, StepResult | NightResult)
        result = failed(exc) if broke else exc.report
    except StewardError as exc:
        result = failed(exc)
    except (KeyboardInterrupt, Terminated) as exc:
        error = exc if isinstance(exc, Terminated) else Terminated(signal.SIGINT)
        result, code = failed(error), 128 + error.number
    except Exception as exc:
        if not stopping.number:
            log.exception("an error that pgsteward does not know; please report it")
        result = failed(exc)
    if broke and stopping.number:  # whatever became of the exception on its way
        result, code = failed(Terminated(stopping.number)), 128 + stopping.number
    if isinstance(result, StepResult):
        result = result.marked(dry_run)
    try:  # printed first: who stops us while the history is locked still has the result
        if broke and isinstance(result, StepResult) and not as_json and "preflight" not in result.details:
            print_error(result.summary)
        else:
            print_result(result, as_json=as_json)
    finally:
        if remember and config is not None and chosen is not None and not result.dry_run:
            _remember(config, chosen, result, database)
    raise typer.Exit(EXIT_STATUS[result.status] if code is None else code)


@contextmanager
def guarded(step: str = "", target: str = "", *, as_json: bool = False) -> Iterator[None]:
    """Turn expected errors of a command that runs no operation into a message and an exit status.

    Args:
        step: Name of the command, for the object that `as_json` prints.
        target: As given.
        as_json: Print one JSON object instead of a message.
    """

    def leave(error: BaseException, code: int) -> NoReturn:
        if as_json:
            print_result(results.failure(step, target, error), as_json=True)
        else:
            print_error(str(error))
        raise typer.Exit(code) from None

    try:
        yield
    except ConfigError as exc:
        leave(exc, MISUSE)
    except StewardError as exc:
        leave(exc, EXIT_STATUS["failed"])
    except (KeyboardInterrupt, Terminated) as exc:
        ended = exc if isinstance(exc, Terminated) else Terminated(signal.SIGINT)
        if as_json:
            leave(ended, 128 + ended.number)
        raise typer.Exit(128 + ended.number) from None
    except typer.Exit:
        raise
    except Exception as exc:
        log.exception("an error that pgsteward does not know; please report it")
        leave(exc, EXIT_STATUS["failed"])


@dataclass(slots=True)
class Stopping:
    """Whether we were told to end.

    Attributes:
        number: The first signal that said so; 0 while there was none.
    """

    number: int = 0


@contextmanager
def signals() -> Iterator[Stopping]:
    """Make SIGINT, SIGTERM and SIGHUP end the operation by an exception, once; the next ones are ignored.

    A second Ctrl-C would break the clean-up that the first one started. An exception that is swallowed, as
    Python does where it falls into a fork or a ``__del__``, is raised once more.
    """
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    stopping = Stopping()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        stopping.number = number
        print_line("Stopping; cleaning up ...")
        leave(number, frame)

    def leave(number: int, frame: FrameType | None) -> None:
        if stopping.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(stopping.number)

    def swallowed(lost: sys.UnraisableHookArgs) -> None:
        if stopping.number and issubclass(lost.exc_type, KeyboardInterrupt | Terminated):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            hook(lost)

    before = {number: signal.getsignal(number) for number in (*caught, signal.SIGALRM)}
    hook = sys.unraisablehook
    signal.signal(signal.SIGALRM, leave)
    sys.unraisablehook = swallowed
    for number in caught:
        # nohup is respected. SIGINT is not left ignored: a shell's background job is born that way, and
        # whoever sends it one means it.
        if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield stopping
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def load_config(ctx: typer.Context) -> Config:
    """Read the configuration.

    Raises:
        ConfigError: It is missing or wrong.
    """
    from pgsteward import config

    return config.load(settings_of(ctx).config)


def choose_target(config: Config, name: str | None) -> Target:
    """Return the target that was named, or the only one there is.

    Raises:
        ConfigError: There is no such target, or none was named and there are several.
    """
    from pgsteward.targets import Target

    if name is None:
        if len(config.targets) != 1:
            known = ", ".join(sorted(config.targets)) or "none is defined; add a [targets.NAME]"
            raise ConfigError(f"say which target: {known}")
        name = next(iter(config.targets))
    return Target(name, config.target(name), config)


def split_target(
    ctx: typer.Context, target: str | None, backup: str | None, words: Collection[str] = BACKUP_WORDS
) -> tuple[str | None, str | None]:
    """Tell ``verify app latest`` from ``verify latest``: a lone backup needs no target where there is one."""
    from pgsteward.backup.manifest import BACKUP_ID

    if target is None or backup is not None:
        return target, backup
    if target in words or BACKUP_ID.fullmatch(target):
        return None, target
    return target, None


def check_backup_id(backup: str) -> None:
    """Refuse what can't be a backup before anything is asked for it.

    Raises:
        ConfigError: It is neither ``latest`` nor an id.
    """
    from pgsteward.backup.manifest import BACKUP_ID

    if backup not in BACKUP_WORDS and not BACKUP_ID.fullmatch(backup):
        raise ConfigError(
            f"{backup!r} is not a backup; write latest or an id as `pgsteward backups` prints it"
        )


def export_config(ctx: typer.Context) -> None:
    """Let child processes read the configuration that ``--config`` names."""
    from pgsteward.places import CONFIG_ENV

    given = settings_of(ctx).config
    if given is not None:
        os.environ[CONFIG_ENV] = str(given.absolute())


def _across(
    target: Target,
    step: str,
    operation: Operation,
    database: str | None,
    progress: Progress,
    reads_stores: bool,
    side_by_side: str | None,
) -> StepResult:
    from pgsteward import several

    def call(bound: Target) -> StepResult:
        result = operation(bound, progress)
        assert isinstance(result, StepResult)
        return result

    if reads_stores:
        return several.over_stored(target, step, call, database=database)
    return several.over(target, step, call, database=database, side_by_side=side_by_side, progress=progress)


def _remember(config: Config, target: Target, result: Result, database: str | None) -> None:
    try:
        from pgsteward import state  # a Python may have been built without SQLite

        state.remember(config, result, database=database or target.scope)
    except Exception:  # an operation never fails by its history
        log.warning("this run is missing from the history", exc_info=True)
