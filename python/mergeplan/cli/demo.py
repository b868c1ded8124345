"""`mergeplan demo`."""

from pathlib import Path

import click

from mergeplan.cli.options.path import PATH


@click.command("demo")
@click.option(
    "-o",
    "--out",
    type=PATH,
    help="Keep models, texts and the merge in this folder. [default: a temporary one]",
)
def command(out: Path | None) -> None:
    """Run the whole path on a small pool that comes with mergeplan.

    The pool is a byte-level language model of 80,592 parameters with nine experts, trained on kinds
    of text that a Debian machine holds, and the measured losses of all 511 subsets. No torch.
    """
    import tempfile

    from mergeplan.demo.demo import run_demo

    if out is not None:
        run_demo(out, click.echo)
        return
    with tempfile.TemporaryDirectory(prefix="mergeplan-demo-") as folder:
        run_demo(Path(folder), click.echo, keep=False)
