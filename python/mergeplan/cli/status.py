"""`mergeplan status`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.path import PATH


@click.command("status")
@click.argument("run", metavar="RUN_DIR", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(run: Path, as_json: bool) -> None:
    """Say how a run of `calibrate` or `tune` stands: measured, at work or not, and what goes on.

    Nothing is written, and a run that is at work is not disturbed.
    """
    from mergeplan.calibration.status import status
    from mergeplan.tuning.status import is_tuning, tune_status

    if is_tuning(run):
        tuning = tune_status(run)
        if not as_json:
            click.echo(tuning.summary())
            return
        last = None if tuning.last is None else tuning.last.isoformat()
        data = {**vars(tuning), "last": last, "next": tuning.next_command or None}
        del data["next_command"]
        print_document("tune_status", data)
        return
    found = status(run)
    if not as_json:
        click.echo(found.summary())
        return
    last = None if found.last is None else found.last.isoformat()
    verdict = found.verdict and {
        name: value for name, value in vars(found.verdict).items() if name not in _ELSEWHERE
    }
    data = {**vars(found), "last": last, "verdict": verdict, "next": found.next_command or None}
    del data["next_command"]
    print_document("status", data)


# Of a verdict, what `next` says.
_ELSEWHERE = ("config", "measure")
