"""What a user says of data: files, `name=file`, folders, pools."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mergeplan.display.text import is_unicode
from mergeplan.errors import InputError, MissingInputError
from mergeplan.measurements.rows import MACRO, domain_name
from mergeplan.system.files import input_path

_ENDING = ".jsonl"
_HINT = "give a .jsonl file, `name=file`, a folder of .jsonl files, or a pool.yml with `data`"


# Data as functions take it: a source, several, or a file for each domain.
Data = Mapping[str, str | Path] | str | Path | Sequence[str | Path]


def files_of(data: Data) -> dict[str, Path]:
    """Each domain's file, in whichever way data was given.

    Raises:
        MissingInputError, InputError: As for `find_data`.
    """
    if isinstance(data, Mapping):
        return {name: input_path(path) for name, path in data.items()}
    sources = [data] if isinstance(data, str | Path) else data
    return find_data(tuple(map(str, sources)))


def find_data(sources: tuple[str, ...]) -> dict[str, Path]:
    """Each domain's file.

    Raises:
        MissingInputError: A source is not there.
        InputError: A source holds no data, or two domains have one name.
    """
    data: dict[str, Path] = {}
    for source in sources:
        for domain, path in _find(source).items():
            if not is_unicode(domain):
                raise InputError(
                    f"domain `{domain}`: its name is no UTF-8", "give it another: `name=file`"
                )
            if domain_name(domain) == MACRO:
                raise InputError(
                    f"domain `{domain}` of `{source}`: the name is that of the mean over domains",
                    f"give it another: `name={path}`",
                )
            if domain in data:
                raise InputError(
                    f"domain `{domain}` is both `{data[domain]}` and `{path}`",
                    f"give one another name: `name={path}`",
                )
            data[domain] = path
    return data


def _find(source: str) -> dict[str, Path]:
    path = input_path(source)
    domain, equals, file = source.partition("=")
    if equals and not path.exists():
        if not domain or not file:
            raise InputError(f"data `{source}`: expected `name=file`", _HINT)
        return {domain: input_path(file)}
    if path.is_dir():
        files = sorted(path.glob(f"*{_ENDING}"))
        if not files:
            raise MissingInputError(f"folder `{source}` holds no {_ENDING} files", _HINT)
        return {file.stem: file for file in files}
    if path.suffix in (".yml", ".yaml"):
        from mergeplan.pool.pool import load_pool

        data = load_pool(path).data
        if not data:
            raise InputError(f"pool `{source}` has no `data`", "list each domain's file under it")
        for named in data.values():
            if named.exists() and not named.is_file():
                raise InputError(f"`{named}`: expected a plain file, as pool `{source}` names it")
        return data
    if path.suffix == _ENDING:
        return {path.stem: path}
    if not path.exists():
        raise MissingInputError(f"data `{source}` is not there", _HINT)
    raise InputError(f"data `{source}`: expected a file ending in {_ENDING}", _HINT)


def names_in_pools(sources: tuple[str, ...]) -> dict[Path, str]:
    """What the pools among some sources call the models in which folders."""
    from mergeplan.pool.pool import load_pool

    paths = [input_path(source) for source in sources]
    pools = [load_pool(path) for path in paths if path.suffix in (".yml", ".yaml")]
    sizes = [size for pool in pools for size in pool.sizes]
    return {path.resolve(): name for size in sizes for name, path in size.experts.items()}
