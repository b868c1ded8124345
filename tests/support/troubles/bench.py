"""Where the errors of the troubleshooting page are made: real models, and who makes which."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mergeplan.errors import MergeplanError
from tests.support.commands import Done, cli
from tests.support.settings import DEMO_POOL

CONFIG = """\
merge_method: ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {weight: 1, density: 0.5}
"""


@dataclass(frozen=True)
class Bench:
    """A folder with the models `base`, `a` and `b`, and a config `c.yml` that merges them.

    Attributes:
        patch: For what the surroundings have to be, undone at the end.
    """

    folder: Path
    patch: pytest.MonkeyPatch

    @classmethod
    def made(cls, folder: Path, patch: pytest.MonkeyPatch) -> "Bench":
        for name, expert in (("base", "base"), ("a", "html"), ("b", "python")):
            shutil.copytree(DEMO_POOL / expert, folder / name)
        (folder / "c.yml").write_text(CONFIG)
        return cls(folder, patch)

    @property
    def weights(self) -> Path:
        """The file of `b`'s weights."""
        return self.folder / "b" / "model.safetensors"

    def run(self, *args: object) -> Done:
        """The command, in that folder."""
        return cli(*args, cwd=self.folder)

    def merge(self, *options: object, text: str = CONFIG) -> Done:
        """A merge into `out`."""
        (self.folder / "c.yml").write_text(text)
        return self.run("merge", "c.yml", "out", *options)

    def edit(self, old: str, new: str) -> Done:
        """A merge by the config with a part of it replaced."""
        assert old in CONFIG
        return self.merge(text=CONFIG.replace(old, new))

    def settings(self, file: str, **changes: Any) -> None:
        """Change keys of one of `b`'s JSON files."""
        path = self.folder / "b" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def tensors(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change `b`'s tensors."""
        from safetensors.torch import load_file, save_file

        tensors = load_file(self.weights)
        change(tensors)
        save_file(tensors, self.weights, metadata={"format": "pt"})


Producer = Callable[[Bench], Done]
# By the heading of the page that has the message.
PRODUCERS: dict[str, Producer] = {}


def produces(heading: str) -> Callable[[Producer], Producer]:
    """Say which message a function makes."""

    def register(producer: Producer) -> Producer:
        assert heading not in PRODUCERS, heading
        PRODUCERS[heading] = producer
        return producer

    return register


def called(call: Callable[[], Any]) -> Done:
    """What a call from Python raises, as the command would say it."""
    with pytest.raises(MergeplanError) as caught:
        call()
    return Done([], caught.value.exit_code, "", f"error: {caught.value.message}\n")
