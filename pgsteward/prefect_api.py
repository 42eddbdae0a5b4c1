"""The few calls to a Prefect server that pgsteward makes without importing Prefect."""

from __future__ import annotations

import http
import http.client
import json
import os
import time
import tomllib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pgsteward import config_checks
from pgsteward.errors import ConfigError, PreconditionError, ToolFailed

PAGE = 200


class PrefectUnreachable(ToolFailed):
    """Nobody answers at the address of the Prefect server."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a flow run.

    Attributes:
        type: Prefect's own word: ``COMPLETED``, ``FAILED``, ``CRASHED``, ``CANCELLED``, ``RUNNING`` ...
        name: What the UI shows, e.g. ``Skipped``.
        message: One sentence, or nothing.
    """

    type: str
    name: str
    message: str = ""

    @property
    def final(self) -> bool:
        return self.type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True)
class PrefectApi:
    """A Prefect server, by its address.

    Attributes:
        url: As in ``PREFECT_API_URL``, ends with ``/api`` or a Cloud workspace.
        headers: What it takes to be let in.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of_env(cls, url: str, env: Mapping[str, str]) -> PrefectApi:
        """Return the server at `url` with the credentials of `env`, used as Prefect's own client does."""
        if env.get("PREFECT_API_KEY"):
            return cls(url, {"Authorization": f"Bearer {env['PREFECT_API_KEY']}"})
        if env.get("PREFECT_API_AUTH_STRING"):
            basic = b64encode(env["PREFECT_API_AUTH_STRING"].encode()).decode()
            return cls(url, {"Authorization": f"Basic {basic}"})
        return cls(url)

    def get(self, path: str) -> Any:
        """Read something."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | list[Mapping[str, Any]]) -> Any:
        """Create, filter or change something."""
        return self._call("POST", path, body)

    def answers(self) -> bool:
        """Return whether a healthy server is there."""
        try:
            return self.get("/health") is True
        except ToolFailed:
            return False

    def flow_runs(self, state_types: Iterable[str]) -> list[dict[str, Any]]:
        """Return all flow runs in one of these states."""
        wanted = {"flow_runs": {"state": {"type": {"any_": list(state_types)}}}, "limit": PAGE}
        found: list[dict[str, Any]] = []
        while True:
            page = self.post("/flow_runs/filter", {**wanted, "offset": len(found)})
            found += page
            if len(page) < PAGE:
                return found

    def set_state(
        self, run_id: str, type_: str, name: str, *, message: str = "", force: bool = False
    ) -> None:
        """Propose a state of a flow run, or force it."""
        state = {"type": type_, "name": name, "message": message}
        self.post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": force})

    def run_state(self, run_id: str) -> RunState:
        """Return the state of a flow run."""
        state = self.get(f"/flow_runs/{run_id}")["state"] or {"type": "PENDING", "name": "Pending"}
        return RunState(state["type"], state["name"], state.get("message") or "")

    def run_deployment(self, name: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Ask for a run of a deployment (``flow/deployment``) now and return the run's id."""
        deployment = self.get(f"/deployments/name/{quote(name)}")
        run = self.post(
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": dict(parameters or {}), "state": {"type": "SCHEDULED"}},
        )
        return str(run["id"])

    def _call(self, method: str, path: str, body: object) -> Any:
        """Ask, and ask again while the server is busy: SQLite's "database is locked" arrives as a 503."""
        for wait_s in (0.2, 0.5, 1.0, 2.0, 4.0):
            status, text = self._ask(method, path, body)
            if status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                break
            time.sleep(wait_s)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ToolFailed(f"the Prefect server refused {method} {path} ({status}): {text[:500]}")
        return json.loads(text) if text else None

    def _ask(self, method: str, path: str, body: object) -> tuple[int, str]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(
                method,
                parts.path.rstrip("/") + path,
                body=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json", **self.headers},
            )
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as exc:
            raise PrefectUnreachable(f"the Prefect server at {self.url} does not answer: {exc}.") from exc
        finally:
            connection.close()


def configured_url(env: Mapping[str, str] | None = None) -> str | None:
    """Return the server that Prefect's own client would use: ``$PREFECT_API_URL``, else the active profile's.

    Raises:
        ConfigError: Prefect's profiles can't be read.
    """
    env = os.environ if env is None else env
    if env.get("PREFECT_API_URL"):
        return env["PREFECT_API_URL"].rstrip("/")
    file = Path(env.get("PREFECT_HOME") or Path.home() / ".prefect") / "profiles.toml"
    if not file.is_file():
        return None
    try:
        profiles = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{file}: Prefect's profiles can't be read: {exc}") from exc
    active = env.get("PREFECT_PROFILE") or profiles.get("active")
    url = profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return str(url).rstrip("/") if url else None


def is_loopback(url: str) -> bool:
    """Return whether a server of ours could be the one at this address."""
    return config_checks.is_loopback(urlsplit(url).hostname)


def require(api: PrefectApi) -> None:
    """Raise when the server does not answer.

    Raises:
        PreconditionError: The text says how to go on.
    """
    if not api.answers():
        raise PreconditionError(
            f"no Prefect server answers at {api.url}; start it, correct PREFECT_API_URL, or unset it and let"
            " `pgsteward up` start one of its own"
        )
