"""One self-contained page: a template, its style and scripts, a library, and the data as JSON.

Names and texts in the data come from strangers. They stand in a script element of no script, where
nothing that could end it is left, and the scripts put them into the page as text alone. The policy
lets run what has the hash of our own scripts, and nothing be loaded from anywhere.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from mergeplan.display.text import finite

# d3 5.16.0, as Debian builds it (node-d3), under the licence that stands beside it.
_LIBRARY = "d3.min.js"
_SCRIPTS = ("forms.js", "made.js", "core.js", "draw.js")


def page_text(data: dict[str, Any], panels: Iterable[str], title: str) -> str:
    """The whole page.

    Args:
        data: What the panels draw.
        panels: Names of their scripts, in the order they are shown.
        title: Of the window; any text.

    Returns:
        HTML, which opens from a disk.
    """
    scripts = [_asset(_LIBRARY), *map(_asset, _SCRIPTS)]
    scripts += [_asset(f"panels/{name}.js") for name in panels]
    scripts.append(_asset("start.js"))
    style = _asset("page.css")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:;"
        f" script-src {_hashes(scripts)}; style-src {_hashes([style])}"
    )
    parts = {
        "POLICY": policy,
        "TITLE": _as_text(title),
        "STYLE": f"<style>{style}</style>",
        "LICENCE": _as_text(_asset("d3.LICENSE")),
        "SCRIPTS": "\n".join(f"<script>{script}</script>" for script in scripts),
        "DATA": _json(data),
    }
    page = _asset("page.html")
    for name, text in parts.items():  # the data last: it may hold any of these marks
        page = page.replace(f"<!--{name}-->", text, 1)
    return page


@cache
def _asset(name: str) -> str:
    return files("mergeplan.reporting").joinpath("web", name).read_text(encoding="utf-8")


def _hashes(texts: Iterable[str]) -> str:
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in texts
    )


def _as_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json(data: dict[str, Any]) -> str:
    """JSON that no element of HTML can end, with seven digits or more of every number."""
    text = json.dumps(finite(data), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
