"""The report page in a real browser; skipped with its reason where there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mergeplan
from tests.support.browser import Browser, a_browser, why_no_browser
from tests.support.pools import copied_pool
from tests.support.settings import DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of a module: playwright's event loop would be in the way of others that want one.
    if reason := why_no_browser():
        pytest.skip(reason)
    with a_browser() as found:
        yield found


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of five experts, in the folder of its pool."""
    folder = tmp_path_factory.mktemp("pool")
    copied_pool(folder)
    return Path(shutil.copytree(DATA / "run_5_experts", folder / "run"))


@pytest.fixture(scope="session")
def report_page(run: Path) -> Path:
    out = run.parent / "report.html"
    mergeplan.report(run, out, pool_file=run.parent / "pool.yml")
    return out


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Any]]:
    """Opens a file; when the test ends, the page must have been quiet."""
    yield browser.open
    assert browser.said == []


@pytest.fixture
def page(opened: Callable[..., Any], report_page: Path) -> Any:
    return opened(report_page)
