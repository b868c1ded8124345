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
def a_browser() -> Iterator[Any]:
    """One browser; a page is opened in it by `visit`."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses its sandbox to root, as which containers run.
    arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_executable(), args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Any, path: Path, *, quiet: bool = True, **options: Any) -> Iterator[Any]:
    """A page of a file, drawn.

    Args:
        quiet: Whether it has to say nothing on the console, to fail nowhere, and to ask for nothing
            but itself.
        options: Of playwright's `new_context`.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(8000)
    page = context.new_page()
    # What is copied is kept; a browser without a window has no clipboard to look into.
    page.add_init_script(
        "window.copied = [];"
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) =>"
        " { window.copied.push(text); }}});"
    )
    said: list[str] = []
    page.on("console", lambda one: said.append(f"console: {one.text}"))
    page.on("pageerror", lambda one: said.append(f"error: {one}"))
    page.on("dialog", lambda one: (said.append(f"dialog: {one.message}"), one.dismiss()))
    page.on("request", lambda one: said.append(f"request: {one.url}"))
    page.goto(path.as_uri())
    assert page.evaluate("document.body.dataset.ready") == "yes", said
    assert said.pop(0) == f"request: {path.as_uri()}"
    yield page
    context.close()
    assert not (quiet and said), said
