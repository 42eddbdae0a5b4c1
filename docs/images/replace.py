"""Replace the database of a running `make demo-up` by its backup, by clicking, and take the pictures.

    /tmp/shots/bin/python docs/images/replace.py http://127.0.0.1:4200/v2/      # see renew.py beside it

Starts `restore` with `replace` and without `confirm_database`, sees it pause, types the name into the dialog
and watches it to its end.
"""

from __future__ import annotations

import sys

from playwright.sync_api import expect
from renew import browser_page, newest_artifact, open_form, picture, settle, show, submit, wait_for_state

DATABASE = "intowork"


def main(base: str) -> None:
    """Replace the database and take all pictures."""
    with browser_page() as page:
        open_form(page, base, "restore")
        page.get_by_role("switch").first.click()  # replace
        page.set_viewport_size({"width": 1440, "height": 1210})
        picture(page, "replace-form")
        run_id = submit(page, base)
        page.set_viewport_size({"width": 1440, "height": 1000})
        wait_for_state(page, base, run_id, "PAUSED")
        page.reload()
        settle(page, 3)
        page.get_by_role("button", name="Open menu").last.click()
        settle(page, 1)
        picture(page, "replace-paused")
        page.get_by_role("menuitem", name="Resume").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This replaces")
        dialog.locator("textarea, input").first.fill(DATABASE)
        settle(page, 1)
        picture(page, "replace-resume")
        dialog.get_by_role("button", name="Resume").click()
        wait_for_state(page, base, run_id, "COMPLETED")
        replaced = newest_artifact(page, base, "restore-app")
        page.set_viewport_size({"width": 1440, "height": 1400})
        show(page, f"{base}artifacts/artifact/{replaced['id']}", "replace-report")


if __name__ == "__main__":
    main(sys.argv[1])
