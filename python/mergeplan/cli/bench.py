"""`mergeplan bench`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import MisuseError, warn
from mergeplan.cli.options.units import Integers
from mergeplan.errors import InputError


@click.command("bench")
@click.option(
    "--shape", default="0.5b", show_default=True, help="Size of the models: 0.5b, 1.5b, 7b, tiny."
)
@click.option("--methods", metavar="NAMES", help="Joined by commas. [default: all it knows]")
@click.option(
    "--k",
    "ks",
    type=Integers(1, 64),
    default="4",
    show_default=True,
    help="Numbers of experts, joined by commas.",
)
@click.option("-j", "--threads", type=click.IntRange(1, 1024), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--mergekit/--no-mergekit",
    default=None,
    help="Run mergekit too, some minutes for each method. [default: if it is installed]",
)
@click.option(
    "--mergekit-k",
    type=click.IntRange(1, 64),
    help="Which k of --k mergekit runs, once for each method. [default: 4, or the nearest to it]",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True),
    help="Another mergeplan, run in turn with this one and compared pair by pair: a checkout with"
    " its core built, such as the commit before, or the Python that it is installed for.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the models there and keep them. [default: a temporary folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print every run as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is being measured.")
def command(
    shape: str,
    methods: str | None,
    ks: tuple[int, ...],
    threads: int,
    rounds: int,
    mergekit: bool | None,
    mergekit_k: int | None,
    against: Path | None,
    folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure merges on this machine beside mergekit and a plain copy; prints a Markdown table.

    Every method in bfloat16 and float32: the median of --rounds whole processes, the fastest of as
    many plain copies between them, mergekit once, and what of the time one thread takes alone.

    Makes a base and as many experts as the largest k (1 GB each at 0.5b). Ratios between
    contenders of one run mean more than seconds.
    """
    from mergeplan.bench.bench import CASES, BenchOptions, bench
    from mergeplan.bench.machine import has_mergekit
    from mergeplan.bench.models import SHAPES
    from mergeplan.bench.other import check_other
    from mergeplan.bench.report import bench_data, markdown

    chosen = tuple(CASES) if methods is None else tuple(methods.split(","))
    _check_choice("--shape", (shape,), list(SHAPES))
    _check_choice("--methods", chosen, list(CASES))
    if mergekit and not has_mergekit():
        raise click.UsageError("mergekit is not installed: `pip install mergekit==0.1.5`")
    if mergekit is None:
        mergekit = has_mergekit()
        if not mergekit and not quiet:
            warn("mergekit is not installed, so there is nothing to compare with but the copy")
    if mergekit_k is None:
        mergekit_k = min(ks, key=lambda k: (abs(k - 4), k))
    elif mergekit_k not in ks:
        raise click.UsageError(f"--mergekit-k {mergekit_k} is not among --k")
    chosen_k = mergekit_k if mergekit else None
    other = against.absolute() if against else None
    if other is not None:
        try:
            check_other(other)
        except InputError as error:
            raise MisuseError(f"--against: {error}", error.hint) from error
    options = BenchOptions(shape, chosen, ks, threads, rounds, chosen_k, other)

    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="mergeplan-bench-")))
        status = stack.enter_context(_status_line(quiet=quiet))
        report = bench(folder.resolve(), options, status)
    if as_json:
        print_document("bench", bench_data(report))
    else:
        click.echo(markdown(report))


@contextmanager
def _status_line(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Says what is being measured, on one line, where a person watches."""
    shown = not quiet and sys.stderr.isatty()

    def tell(what: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K{what}", nl=False, err=True)

    try:
        yield tell
    finally:
        tell("")


def _check_choice(option: str, given: tuple[str, ...], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise click.BadParameter(
                f"expected one of {', '.join(known)}, found `{name}`", param_hint=option
            )
