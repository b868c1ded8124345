"""The data of a page, read out of its text."""

import json
import re
from pathlib import Path
from typing import Any


def data_of(page: Path) -> dict[str, Any]:
    """What the page's scripts read."""
    text = page.read_text(encoding="utf-8")
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


def run_of(page: Path) -> dict[str, Any]:
    """The only run of a page."""
    [run] = data_of(page)["runs"]
    return run
