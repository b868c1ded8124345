"""Which packages mergeplan needs, and what each extra is for. The tests hold it against
pyproject.toml."""

import re
from dataclasses import dataclass

# Distribution -> the versions that will do: from one on, or one alone.
REQUIRED = {
    "annotated-types": ">=0.6",
    "click": ">=8.1",
    "lazy_loader": ">=0.4",
    "numpy": ">=1.24",
    "pydantic": ">=2.10",
    "pyyaml": ">=6",
    "regex": ">=2023.6.3",
    "scipy": ">=1.10",
    "threadpoolctl": ">=3",
}
_MODULES = {"pyyaml": "yaml", "annotated-types": "annotated_types", "lm-eval": "lm_eval"}


@dataclass(frozen=True)
class Extra:
    """What `pip install 'mergeplan[NAME]'` brings.

    Attributes:
        packages: The versions of each that will do.
        use: What does not work without it.
    """

    packages: dict[str, str]
    use: str


EXTRAS = {
    "eval": Extra(
        {"torch": ">=2.4", "transformers": ">=4.56"},
        "`evaluate`, `compare`, `calibrate`, `merge --device`",
    ),
    "harness": Extra({"lm-eval": ">=0.4.13"}, "`--tasks` of `evaluate`, `compare` and `calibrate`"),
    "hub": Extra({"huggingface_hub": ">=0.30"}, "models by their hub ids, `merge --push-to-hub`"),
    "mergekit": Extra(
        {"mergekit": "==0.1.5"}, "`mergekit`, tokenizer options, `modules`, `bench` beside mergekit"
    ),
    "plot": Extra({"matplotlib": ">=3.7"}, "`plot`, `--plot`, `law.png` of a run"),
    "ray": Extra({"ray": ">=2.30"}, "`--ray` of `merge` and `calibrate`"),
}


@dataclass(frozen=True)
class Package:
    """A package, as far as it is installed.

    Attributes:
        version: `None` where it is not installed.
        needed: The versions that will do.
    """

    name: str
    version: str | None
    needed: str

    @property
    def fault(self) -> str:
        """What is wrong with it; empty where nothing is."""
        if self.version is None:
            return f"{self.name} is not installed"
        found, needed = _numbers(self.version), _numbers(self.needed.lstrip("=<>"))
        if found < needed or (self.needed.startswith("==") and found != needed):
            return f"{self.name} is {self.version}, expected {self.needed}"
        return ""


def find_package(name: str, needed: str) -> Package:
    """Look a package up, without importing it."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    try:
        found = version(name)
    except PackageNotFoundError:
        return Package(name, None, needed)
    # A version is left behind where an installation was broken off.
    there = find_spec(_MODULES.get(name, name)) is not None
    return Package(name, found if there else None, needed)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at their end.

    >>> _numbers("2.15.0+cu132"), _numbers("6.0rc1") == _numbers("6")
    ((2, 15), True)
    """
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
