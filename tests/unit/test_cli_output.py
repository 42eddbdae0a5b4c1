"""What a person at a terminal sees; the terminal is a real one (a pty)."""

from __future__ import annotations

import sys

import pytest

from pgsteward import cli_output
from tests.terminal import run_on_a_terminal


def on_a_terminal(code: str) -> str:
    """Run Python with a terminal of 100 columns and return what it showed, without colours."""
    status, shown = run_on_a_terminal([sys.executable, "-c", code])
    assert status == 0, shown
    return shown


def test_a_night_is_shown_worst_first() -> None:
    shown = on_a_terminal(
        "from pgsteward.cli_output import print_result\n"
        "from tests.unit.test_report import BAD\n"
        "print_result(BAD, as_json=False)"
    )
    assert " FAILED " in shown
    places = [
        shown.index(words) for words in ("Needs a person", "NoSuchBucket", "what happened", "backup id")
    ]
    assert places == sorted(places)


def test_the_id_of_a_backup_is_never_folded_and_can_be_copied() -> None:
    shown = on_a_terminal(
        "from pgsteward.cli_output import print_result\n"
        "from tests.unit.test_report import BACKUPS\n"
        "print_result(BACKUPS, as_json=False)"
    )
    assert "20261123T020000Z-7f3a9c" in shown
    assert "green 1 h" in shown
    assert "disk, s3" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_progress_is_shown_once_it_takes_longer_than_a_second() -> None:
    shown = on_a_terminal(
        "import time\n"
        "from pgsteward.cli_output import TerminalProgress\n"
        "with TerminalProgress('backup') as progress:\n"
        "    progress('dumping public.[Order]', 1, 4)\n"
        "    while progress._bar is None: time.sleep(0.05)\n"
        "    with progress._lock: progress._bar._progress.refresh()\n"
        "    progress('hashing', 0, 0)\n"
        "    progress._bar._progress.refresh()"
    )
    assert "dumping public.[Order]" in shown
    assert "hashing" in shown


def test_what_is_quick_shows_no_progress() -> None:
    shown = on_a_terminal(
        "from pgsteward.cli_output import TerminalProgress\n"
        "with TerminalProgress('backup') as progress:\n"
        "    progress('dumping')"
    )
    assert shown == ""


def test_markup_in_names_is_shown_as_it_is() -> None:
    shown = on_a_terminal(
        "from pgsteward.cli_output import print_result\n"
        "from pgsteward.results import Item, Note, StepResult\n"
        "print_result(StepResult('reindex', 'app', 'partial', 2, (Item('public.[bold]', 'rebuilt'),),"
        " failed=(Note('public.[/red]', 'no [right]'),)), as_json=False)"
    )
    for name in ("public.[bold]", "public.[/red]", "no [right]"):
        assert name in shown


def test_an_error_is_one_message_with_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    cli_output.print_error("there is no [targets.app]")
    assert capsys.readouterr().err == "Error: there is no [targets.app]\n"
