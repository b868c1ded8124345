"""Small pools to calibrate, for several tests."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.settings import DEMO_POOL, EVAL

NAMES = ("html", "js", "md", "perl", "python")


def write_pool(folder: Path, *, n_texts: int | None = 3, **changes: Any) -> Path:
    """Five real experts, two domains of so many texts, two methods; `changes` replace keys."""
    texts = folder / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    for domain in ("html", "python"):
        lines = (EVAL / f"{domain}.jsonl").read_text("utf-8").splitlines()[:n_texts]
        (texts / f"{domain}.jsonl").write_text("\n".join(lines) + "\n")
    data = {
        "sizes": [
            {
                "base": str(DEMO_POOL / "base"),
                "experts": {name: str(DEMO_POOL / name) for name in NAMES},
            }
        ],
        "data": {domain: f"texts/{domain}.jsonl" for domain in ("html", "python")},
        "methods": {"task_arithmetic": {"lambda": 0.8}, "dare": {"density": 0.7}},
    }
    path = folder / "pool.yml"
    path.write_text(json.dumps({**data, **changes}))
    return path


def copied_pool(folder: Path) -> Path:
    """The models of `NAMES` in a folder of their own; its pool names them from there."""
    for name in ("base", *NAMES):
        shutil.copytree(DEMO_POOL / name, folder / name)
    path = folder / "pool.yml"
    path.write_text(
        json.dumps(
            {
                "sizes": [{"base": "base", "experts": {name: name for name in NAMES}}],
                "methods": {"task_arithmetic": {"lambda": 0.8}, "average": {}},
            }
        )
    )
    return path
