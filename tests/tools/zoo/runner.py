"""Many trials side by side, each in a process of its own, so that a crash costs one row."""

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.tools.zoo.classes import Species
from tests.tools.zoo.table import faults_of

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Limits:
    """What one trial may take."""

    seconds: float = 180
    n_bytes: int = 6 << 30


@dataclass(frozen=True)
class Run:
    """Trials whose rows are kept as files of `cache`.

    Attributes:
        again: Try what is not right of ours once more, and keep what a row says of mergekit.
        jobs: How many trials at once.
    """

    cache: Path
    again: bool = False
    jobs: int = os.cpu_count() or 1
    limits: Limits = Limits()

    def rows(self, species: Sequence[Species]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows as they come, each with its place in `species`."""
        self.cache.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.tools.zoo.preload"])
        waiting = list(enumerate(species))[::-1]
        running: list[tuple[int, Species, BaseProcess, float]] = []
        while waiting or running:
            while waiting and len(running) < self.jobs:
                place, one = waiting.pop()
                known = self._known(one)
                if known and not (known["left_out"] or (self.again and faults_of(known))):
                    yield place, known
                    continue
                path = self._path(one).with_suffix(".new")
                arguments = (one, path, not (known or {}).get("theirs"), self.limits)
                process: BaseProcess = context.Process(target=_work, args=arguments)
                process.start()
                running.append((place, one, process, time.monotonic()))
            for entry in list(running):
                place, one, process, begun = entry
                process.join(0.02)
                if process.is_alive() and time.monotonic() - begun < self.limits.seconds:
                    continue
                running.remove(entry)
                yield place, self._ended(one, process)

    def _path(self, species: Species) -> Path:
        return self.cache / f"{species.key}.json"

    def _known(self, species: Species) -> dict[str, Any] | None:
        path = self._path(species)
        return json.loads(path.read_text()) if path.exists() else None

    def _ended(self, species: Species, process: BaseProcess) -> dict[str, Any]:
        from tests.tools.zoo.trial import Row

        path = self._path(species)
        new = path.with_suffix(".new")
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        if new.exists() and process.exitcode == 0:
            row = json.loads(new.read_text())
        else:
            why = "took too long" if late else f"the process died with {process.exitcode}"
            row = Row(species.key, list(species.tasks), ours={"every merge": why}).as_json()
        if not row["theirs"]:
            row["theirs"] = (self._known(species) or {}).get("theirs", {})
        new.unlink(missing_ok=True)
        path.write_text(json.dumps(row, indent=1))
        return row


def _work(species: Species, path: Path, with_mergekit: bool, limits: Limits) -> None:
    from tests.tools.zoo.trial import try_species

    resource.setrlimit(resource.RLIMIT_DATA, (limits.n_bytes, limits.n_bytes))
    row = try_species(species, with_mergekit=with_mergekit)
    path.write_text(json.dumps(row.as_json()))
