"""Where merges are attacked: a tiny pool, and folders with files of the user's.

A site is the folder of one round. Beside its output lie files with names that ours might be
mistaken for; whatever happens, they stay.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mergeplan.config.config import loaded_config
from mergeplan.merging.manifest import load_manifest
from mergeplan.pool.subsets import COLUMNS, SubsetMerge
from tests.support.runs import Pool, make_pool
from tests.tools.attacks.children import Ended, command, preload
from tests.tools.attacks.snapshots import Snapshot, contents

OUT, PARTIAL = "out", "out.partial"
# The merges of one of many outputs, by their recipes.
MANY = {name: SubsetMerge(0, 1e6, name, "{}", ("a",)) for name in ("ties", "linear")}
_BYSTANDERS = {
    "out.txt": "mine",
    "out.partial.txt": "mine",
    ".out": "mine",
    "law.json": "{}",
    "out.partial-1/thesis.tex": "mine",
    "models/model.safetensors": "mine",
    "data/journal": "mine",
}


class Ground:
    """The pool, and templates of what merges leave, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool: Pool = make_pool(folder / "pool", 3, (100, 700))
        self._sites = 0
        self._made: dict[object, Any] = {}
        site = self.site()
        preload(self.words("ties"), site, self.notes(site))
        preload(["verify", OUT], site, self.notes(site))
        # What these compile on their first call, the forks then have.
        load_manifest(site / OUT)
        loaded_config(site / "ties.yml")
        shutil.rmtree(site)

    def site(self) -> Path:
        """A folder for one round, with files of the user's and configs."""
        self._sites += 1
        site = self.folder / "sites" / str(self._sites) / "site"
        for name, text in _BYSTANDERS.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        for recipe in ("ties", "linear", "dare_ties"):
            (site / f"{recipe}.yml").write_text(self.pool.config(recipe))
        rows = [f"{name}.yml,{one.key},0,1e6,{name},{{}},1,a,3,0,0" for name, one in MANY.items()]
        (site / "subsets.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
        return site

    def notes(self, site: Path) -> Path:
        """Where a round keeps what its children say."""
        return site.parent / f"notes{len(list(site.parent.iterdir()))}"

    def leave(self, site: Path) -> None:
        """Remove a round's folder."""
        if os.path.ismount(site / OUT):
            subprocess.run(["umount", "--lazy", site / OUT], check=True)
        shutil.rmtree(site.parent)

    def words(self, recipe: str, *more: str) -> list[str]:
        """A merge into `out`, by one thread, into several shards."""
        shards = ["--out-shard-size", str(self.pool.shard_bytes), "--threads", "1", "--quiet"]
        return ["merge", f"{recipe}.yml", OUT, *shards, *more]

    def run(self, site: Path, words: Sequence[str], **more: Any) -> Ended:
        """Run a command in a site to its end."""
        return command(words, site, **{"notes": self.notes(site), **more})

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, made on the first call."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def kept(self, words: Sequence[str], fault: str = "") -> Path:
        """The site of a command that ran to its end, or was killed at a point."""

        def make() -> Path:
            site = self.site()
            ended = self.run(site, words, env={"MERGEPLAN_FAULT": fault and f"{fault}:kill"})
            assert ended.code == (-9 if fault else 0), ended
            return site

        found: Path = self.once((*words, fault), make)
        return found

    def output(self, recipe: str) -> Path:
        """A folder with what a recipe gives."""
        return self.kept(self.words(recipe)) / OUT

    def expected(self, recipe: str) -> Snapshot:
        """What a recipe gives."""
        found: Snapshot = self.once(recipe, lambda: contents(self.output(recipe)))
        return found
