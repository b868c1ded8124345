"""One module for each panel of the page: what it shows, as data.

Each has `panel(source)`, which returns what its JavaScript of the same name in `web/panels` draws,
or `None` where there is nothing to show. A new panel is these two files and a line in `PANELS`.
"""

from collections.abc import Callable
from typing import Any

from mergeplan.reporting.panels import (
    domains,
    experts,
    history,
    law,
    options,
    provenance,
    subsets,
    trust,
    verdict,
)
from mergeplan.reporting.source import Source

PANELS: dict[str, Callable[[Source], dict[str, Any] | None]] = {
    "verdict": verdict.panel,
    "law": law.panel,
    "subsets": subsets.panel,
    "experts": experts.panel,
    "domains": domains.panel,
    "trust": trust.panel,
    "options": options.panel,
    "history": history.panel,
    "provenance": provenance.panel,
}
