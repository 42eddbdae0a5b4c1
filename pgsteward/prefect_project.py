"""Where the Prefect side lives (``prefect.yaml``, flows/, tasks/, deployments/), and how it is called.

The wheel ships the library only; the Prefect side is a checkout or an image's working folder. pgsteward
never imports it: it runs ``python -m deployments.X`` as a child in that folder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pgsteward
from pgsteward import children
from pgsteward.errors import ConfigError
from pgsteward.places import CONFIG_ENV
from pgsteward.results import Item, Note, StepResult

HOME_ENV = "PGSTEWARD_HOME"
PREFECT_FILE = "prefect.yaml"


def find_project() -> Path:
    """Return the folder of the Prefect side.

    In this order: ``$PGSTEWARD_HOME``, the folder that holds our ``prefect.yaml`` at or above the current
    one, the checkout that pgsteward is installed from.

    Raises:
        ConfigError: There is none; the text says what to set.
    """
    named = os.environ.get(HOME_ENV)
    if named:
        folder = Path(named).resolve()
        if not _is_project(folder):
            raise ConfigError(
                f"{HOME_ENV}={named}: there is no {PREFECT_FILE} with flows/ beside it;"
                " point it at a checkout of pgsteward"
            )
        return folder
    try:
        here = Path.cwd()
        above = [here, *here.parents]
    except FileNotFoundError:  # it was removed
        above = []
    for folder in (*above, Path(pgsteward.__file__).resolve().parent.parent):
        if _is_project(folder):
            return folder
    raise ConfigError(
        f"no {PREFECT_FILE} with flows/ beside it at or above this folder: the Prefect side is no part of the"
        f" wheel; run this in a checkout of pgsteward or set {HOME_ENV} to one"
    )


def project_env(project: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of everything that runs in the project: `env`, or ours, and where things are.

    A relative ``$PGSTEWARD_CONFIG`` is made absolute: a flow run has another working folder than we have.
    """
    found = dict(os.environ if env is None else env)
    found[HOME_ENV] = str(project)
    if found.get(CONFIG_ENV):
        found[CONFIG_ENV] = str(Path(found[CONFIG_ENV]).resolve())
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(project), found.get("PYTHONPATH", ""))))
    return found


def run_module(name: str, *args: str) -> int:
    """Run ``python -m deployments.<name>`` on our own terminal and return its exit status.

    Raises:
        ConfigError: The project was not found.
        ToolFailed: Python can't be started.
    """
    project = find_project()
    argv = [sys.executable, "-m", f"deployments.{name}", *args]
    return children.pass_through(argv, env=project_env(project), cwd=project)


def module_result(name: str, *args: str) -> tuple[StepResult, int]:
    """Run ``python -m deployments.<name> --json`` and return what it printed, and its exit status.

    Raises:
        ConfigError: The project was not found.
        ToolFailed: Python can't be started.
    """
    project = find_project()
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        argv = [sys.executable, "-m", f"deployments.{name}", *args, "--json"]
        code = children.pass_through(argv, env=project_env(project), cwd=project, stdout=output)
        output.seek(0)
        said = output.read().decode(errors="replace")
    return as_result(name, said, code).took(time.monotonic() - started), code


def as_result(name: str, said: str, code: int) -> StepResult:
    """Return the object of ``validate`` or ``deploy`` in the shape that every command prints."""
    try:
        data: Mapping[str, Any] = json.loads(said)
    except ValueError:  # it has told the reason on standard error
        data = {"error": said.strip() or f"{name} ended with status {code}; the reason is on standard error"}
    notes = [Note(entry["where"], entry["problem"]) for entry in data.get("findings", ())]
    errors = [n for n, e in zip(notes, data.get("findings", ()), strict=True) if e["level"] == "error"]
    deployed = [Item(each, "deployed") for each in data.get("deployed", ())]
    removed = [Item(each, "removed") for each in data.get("schedules_removed", ())]
    created = [Item(each, "created") for each in data.get("pools_created", ())]
    reason = str(data.get("error") or "")
    return StepResult(
        name,
        "",
        "ok" if code == 0 else "failed",
        int(data.get("deployments", len(deployed))),
        changed=(*created, *deployed, *removed),
        failed=(*errors, *([Note(PREFECT_FILE, reason)] if reason else ())),
        findings=(
            *(note for note in notes if note not in errors),
            *(Note("difference", each) for each in data.get("differences", ())),
        ),
        summary=reason
        or (f"{len(deployed)} deployments" if name == "deploy" else f"{len(errors)} to correct"),
        details={key: data[key] for key in ("file", "server") if key in data},
    )


def module_output(name: str, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Run ``python -m deployments.<name>`` and return what it printed.

    Raises:
        ConfigError: The project was not found.
        ToolFailed: It ended with another status than 0.
    """
    project = find_project()
    argv = [sys.executable, "-m", f"deployments.{name}", *args]
    return children.run(argv, env=project_env(project, env), cwd=project, timeout_s=300)


def _is_project(folder: Path) -> bool:
    return (folder / PREFECT_FILE).is_file() and (folder / "flows" / "nightly.py").is_file()
