"""A real browser: headless Chromium from the system, driven by playwright."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def why_no_browser() -> str | None:
    """What is missing; `None` where there is a browser."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    if _executable() is None:
        return f"no browser on PATH: none of {', '.join(_NAMES)}"
    return None


def _executable() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def a_browser() -> Iterator["Browser"]:
    """One browser with one page."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses its sandbox to root, as which containers run.
    arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_executable(), args=arguments)
        yield Browser(browser.new_page())
        browser.close()


class Browser:
    """A page, and what was said and asked for on it since it was opened.

    Attributes:
        page: Playwright's.
        said: Words on the console, errors, dialogs, and requests of anything but the file itself.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        page.set_default_timeout(8000)
        # What is copied is kept; a browser without a window has no clipboard to look into.
        page.add_init_script(
            "window.copied = [];"
            "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) =>"
            " { window.copied.push(text); }}});"
        )
        page.on("console", lambda one: self.said.append(f"console: {one.text}"))
        page.on("pageerror", lambda one: self.said.append(f"error: {one}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda one: self.said.append(f"request: {one.url}"))

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        """The page of a file, drawn anew.

        Args:
            scheme: `light` or `dark`.
        """
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(color_scheme=scheme, media="screen")
        self.said.clear()
        self.page.goto(path.as_uri())
        assert self.page.evaluate("document.body.dataset.ready") == "yes", self.said
        assert self.said.pop(0) == f"request: {path.as_uri()}"
        return self.page
