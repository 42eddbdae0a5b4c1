"""Renew the pictures of this folder from a running `make demo-up`, by clicking as a person would.

    python3 -m venv /tmp/shots && /tmp/shots/bin/pip install playwright     # and Chromium with an emoji font
    /tmp/shots/bin/python docs/images/renew.py http://127.0.0.1:4200/v2/

Starts `nightly` and `restore` from their forms, watches both to their end and opens the artifacts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def main(base: str) -> None:
    """Take all pictures."""
    with browser_page() as page:
        first = newest_artifact(page, base, "night-app")
        page.set_viewport_size({"width": 1440, "height": 1500})
        show(page, f"{base}artifacts/artifact/{first['id']}", "report")
        page.set_viewport_size({"width": 1440, "height": 1000})
        show(page, f"{base}deployments?limit=50", "deployments")

        open_form(page, base, "nightly")
        picture(page, "nightly-form")
        submit_and_watch(page, base)
        picture(page, "nightly-run")

        open_form(page, base, "restore")
        fields = page.locator("textarea")
        fields.nth(2).fill("s3")
        fields.nth(3).fill(f"intowork_{int(time.time())}")
        page.set_viewport_size({"width": 1440, "height": 1210})
        picture(page, "restore-form")
        submit_and_watch(page, base)
        page.set_viewport_size({"width": 1440, "height": 1300})
        restored = newest_artifact(page, base, "restore-app")
        show(page, f"{base}artifacts/artifact/{restored['id']}", "restore-report")


@contextmanager
def browser_page() -> Iterator[Page]:
    """Open a page in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(60_000)
        page.route(
            "**/*amplitude.com/**", lambda route: route.abort()
        )  # the UI asks for it though analytics are off
        yield page
        browser.close()


def open_form(page: Page, base: str, deployment: str) -> None:
    """Click through to the form of a deployment."""
    page.goto(f"{base}deployments?limit=50")
    page.get_by_role("link", name=deployment, exact=True).first.click()
    settle(page)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    settle(page)


def submit_and_watch(page: Page, base: str) -> None:
    """Submit the form and stay on the run's page until the run has ended well."""
    wait_for_state(page, base, submit(page, base), "COMPLETED")
    settle(page, 4)


def submit(page: Page, base: str) -> str:
    """Submit the form, open the run's page and return the run's id."""
    page.get_by_role("button", name="Submit").click()
    settle(page)
    runs = ask(page, base, "flow_runs/filter", {"limit": 200})
    newest = max((run for run in runs if not run["auto_scheduled"]), key=lambda run: str(run["created"]))
    page.goto(f"{base}runs/flow-run/{newest['id']}")
    return str(newest["id"])


def wait_for_state(page: Page, base: str, run_id: str, wanted: str) -> None:
    """Wait until a run is in a state; it ends everything when the run ends in another."""
    for _ in range(180):
        state = page.request.get(f"{api(base)}flow_runs/{run_id}").json()["state"]
        if state["type"] in {*FINAL, wanted}:
            break
        time.sleep(1)
    print(f"{state['name']}: {state['message']}")
    if state["type"] != wanted:
        raise SystemExit(1)


def newest_artifact(page: Page, base: str, key: str) -> dict[str, Any]:
    """Return the newest version of an artifact."""
    query = {"sort": "CREATED_DESC", "limit": 1, "artifacts": {"key": {"any_": [key]}}}
    found: dict[str, Any] = ask(page, base, "artifacts/filter", query)[0]
    return found


def ask(page: Page, base: str, path: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    """Post a query to Prefect's API."""
    found: list[dict[str, Any]] = page.request.post(f"{api(base)}{path}", data=query).json()
    return found


def api(base: str) -> str:
    """Return the API's address for the UI's."""
    return base.replace("/v2/", "/api/")


def show(page: Page, url: str, name: str) -> None:
    """Open a page and take its picture."""
    page.goto(url)
    settle(page, 3)
    picture(page, name)


def picture(page: Page, name: str) -> None:
    """Take a picture."""
    page.screenshot(path=HERE / f"{name}.png")


def settle(page: Page, seconds: float = 2) -> None:
    """Wait until a page has loaded and drawn itself."""
    page.wait_for_load_state("networkidle")
    time.sleep(seconds)


if __name__ == "__main__":
    main(sys.argv[1])
