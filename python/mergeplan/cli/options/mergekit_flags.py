"""The flags that `merge` takes for the sake of mergekit-yaml: used, or refused with the reason.

`docs/flags.md` has the whole list, with what mergekit does. Those without a use here are hidden
from `--help`: they are for command lines that exist already.
"""

import logging
from collections.abc import Callable
from functools import reduce
from typing import Any

import click

from mergeplan.cli.messages import warn
from mergeplan.cli.options.vocabulary import mismatch_option

Decorator = Callable[[Any], Any]

# Each becomes the field of its name of `MergeOptions`.
WITH_A_FIELD: list[Decorator] = [
    click.option(
        "--lora-merge-dtype",
        type=click.Choice(["bfloat16", "float16", "float32"]),
        help="What base + adapter is rounded to.  [default: as the base is stored]",
    ),
    click.option(
        "--lora-exact",
        is_flag=True,
        help="Do not round base + adapter: small deltas of an adapter vanish in 16 bit.",
    ),
    click.option("--transformers-cache", metavar="DIR", help="The cache of the model hub."),
    click.option("--allow-crimes/--no-allow-crimes", default=False, help="Mix architectures."),
    click.option(
        "--trust-remote-code/--no-trust-remote-code",
        default=False,
        help="Run code that comes with a model, to read its config and tokenizer.",
    ),
    click.option(
        "--unsafe-truncate-embeddings/--no-unsafe-truncate-embeddings",
        default=False,
        help="Cut vocabularies to the smallest one; only right where token ids agree.",
    ),
    mismatch_option,
]

# mergekit's ways to say `--device cuda`.
ON_THE_GPU: list[Decorator] = [
    click.option("--cuda/--no-cuda", default=False, hidden=True),
    click.option("--gpu-rich", is_flag=True, hidden=True),
]

# Taken, and no more than that: why nothing is left to do.
UNNEEDED = {
    "--lora-merge-cache": "adapters are applied while tensors stream; no merged copy is written",
    "--clone-tensors/--no-clone-tensors": "every output tensor has bytes of its own",
    "--lazy-unpickle/--no-lazy-unpickle": "tensors of .bin files are read one by one anyway",
    "--async-write/--no-async-write": "writing always goes on while other tensors are merged",
    "--low-cpu-memory/--no-low-cpu-memory": "results stay in memory nowhere: they are written",
    "--read-to-gpu/--no-read-to-gpu": "with `--device cuda` inputs stream to the GPU anyway",
    "--multi-gpu/--no-multi-gpu": "`--device cuda` uses every GPU that there is",
    "--write-threads": "every worker thread writes what it has merged; see `--threads`",
}

NO_PICKLES = (
    "mergeplan writes safetensors only: a pickled checkpoint can run code where it is loaded;"
    " whoever needs one can `torch.save` what `safetensors.torch.load_file` gives"
)


def mergekit_flags(command: Any) -> Any:
    """Give a command all of them. Those of both lists become its keyword arguments."""
    options = [
        *WITH_A_FIELD,
        *ON_THE_GPU,
        *(_hidden(flag, _note(reason)) for flag, reason in UNNEEDED.items()),
        _hidden(
            "--safe-serialization/--no-safe-serialization",
            _refuse(lambda value: value is False, NO_PICKLES),
        ),
        click.option("-v", "verbosity", count=True, hidden=True, expose_value=False, callback=_log),
    ]
    return reduce(lambda made, option: option(made), reversed(options), command)


def _hidden(flag: str, callback: Callable[..., None]) -> Decorator:
    takes_value = flag in ("--lora-merge-cache", "--write-threads")
    return click.option(
        flag,
        is_flag=not takes_value,
        default=None,
        hidden=True,
        expose_value=False,
        callback=callback,
    )


def _note(reason: str) -> Callable[..., None]:
    def tell(ctx: click.Context, param: click.Parameter, value: object) -> None:
        # `--quiet` is eager, so that it is known by now.
        if value not in (None, False) and not ctx.params.get("quiet"):
            warn(f"`{param.opts[0]}` has no effect: {reason}")

    return tell


def _refuse(wrong: Callable[[object], bool], reason: str) -> Callable[..., None]:
    def check(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if wrong(value):
            given = param.secondary_opts[0] if value is False else param.opts[0]
            value_text = f" {value}" if isinstance(value, str) else ""
            raise click.UsageError(f"{given}{value_text}: {reason}", ctx)

    return check


def _log(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value:
        level = logging.INFO if value == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(name)s: %(message)s")
