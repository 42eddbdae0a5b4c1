"""How long a database can't be reached while a restored one takes its place, and while that is undone.

    make bench BENCH=swap        # 10 swaps forth and 10 back, under 8 clients

Clients ask without a pause and connect again at once when they are thrown out. Measured is the longest time
between two answers, of all of them together (nobody got one) and of the one that fared worst. Writes
`benchmarks/swap.json` and its table in `benchmarks/README.md`; with `--output` only the file named.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from benchmarks.measuring import PGSTEWARD, bench, machine, measure, median, replace_in_readme
from pgsteward import postgres
from pgsteward.errors import StewardError

OUTPUT = Path(__file__).with_name("swap.json")
MARK = "swap.json"
GOAL_S = 1.0
CLIENTS = 8
DATABASE = "shop"
FILL = "CREATE TABLE filled AS SELECT g AS id, md5(g::text) AS filler FROM generate_series(1, 100000) AS g"


@contextmanager
def asking(login: postgres.Login) -> Iterator[list[list[float]]]:
    """Let clients ask all the time; gives, by client, when each got its answers."""
    over = threading.Event()
    answers: list[list[float]] = [[] for _ in range(CLIENTS)]

    def ask(mine: list[float]) -> None:
        while not over.is_set():
            with suppress(StewardError), postgres.connect(login, purpose="bench") as session:
                session.execute("SET application_name = 'a client'")
                while not over.wait(0.002):
                    session.value("SELECT count(*) FROM pg_class")
                    mine.append(monotonic())

    threads = [threading.Thread(target=ask, args=(each,), daemon=True) for each in answers]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def longest_gap(moments: list[float]) -> float:
    """Return the longest time between two answers."""
    return max(later - earlier for earlier, later in pairwise(sorted(moments)))


def main() -> int:
    """Swap forth and back, write the figures and print them beside the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=10, help="swaps each way (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="figures go here, and the README stays as it is")
    parser.add_argument("--folder", type=Path, help="for the server and the backup (default: TMPDIR)")
    options = parser.parse_args()
    found: dict[str, Any] = {**machine(), "clients": CLIENTS}
    with bench({"fsync": "off"}, options.folder) as place:
        found["postgresql"] = place.server.version
        place.admin(f"CREATE DATABASE {DATABASE}")
        with postgres.connect(place.server.login(DATABASE), purpose="bench") as session:
            session.execute(FILL)
        place.configure({"shop": (DATABASE, {"compress": "none"})})
        measure([PGSTEWARD, "backup", "shop"], place.env)
        confirmed = ["--confirm-database", DATABASE]
        commands = {
            "replace": [PGSTEWARD, "restore", "shop", "--replace", *confirmed],
            "undo": [PGSTEWARD, "undo-restore", "shop", *confirmed],
        }
        seconds: dict[str, dict[str, list[float]]] = {
            name: {"all": [], "worst_client": []} for name in commands
        }
        for _ in range(options.repeat):
            for name, command in commands.items():
                with asking(place.server.login(DATABASE)) as answers:
                    measure(command, place.env)
                seconds[name]["all"].append(round(longest_gap([each for one in answers for each in one]), 3))
                seconds[name]["worst_client"].append(round(max(map(longest_gap, answers)), 3))
        found["gaps"] = seconds
    Console().print(text := markdown(found), markup=False)
    (options.output or OUTPUT).write_text(json.dumps(found, indent=1) + "\n")
    if not options.output:
        replace_in_readme(MARK, text)
    return 0


def markdown(found: dict[str, Any]) -> str:
    """Return the table for the README."""
    lines = [
        f"{found['cores']} cores, PostgreSQL {found['postgresql']}, {found['clients']} clients,"
        f" {found['measured_at'][:10]}.",
        "",
        "| swap | times | nobody was answered for: median s | at most | one client at most | goal | met |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, gaps in found["gaps"].items():
        everybody, one = gaps["all"], max(gaps["worst_client"])
        met = "yes" if max(everybody) <= GOAL_S and one <= GOAL_S else "**no**"
        lines.append(
            f"| {name} | {len(everybody)} | {median(everybody):.3f} | {max(everybody):.3f} | {one:.3f}"
            f" | {GOAL_S:.0f} s | {met} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
