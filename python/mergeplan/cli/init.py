"""`mergeplan init`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.path import PATH, complete_files


@click.command("init")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=PATH)
@click.option(
    "-o",
    "--out",
    type=PATH,
    help="The file. [default: pool.yml in FOLDER, or in the folder that all lie in]",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="FOLDER",
    type=PATH,
    help="This model is the base; again for each size. [default: what adapters, config.json or"
    " folders' names tell]",
)
@click.option(
    "--data",
    multiple=True,
    shell_complete=complete_files,
    metavar="TEXTS",
    help="A .jsonl file, `name=file`, or a folder of such. [default: those in FOLDER]",
)
@click.option("--overwrite", is_flag=True, help="Replace the pool if it exists.")
@click.option("--dry-run", is_flag=True, help="Print the file on stdout; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was taken, as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No word of what was taken.")
def command(
    folders: tuple[Path, ...],
    out: Path | None,
    bases: tuple[Path, ...],
    data: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a pool.yml, with comments, of the models, adapters and texts in FOLDER.

    FOLDER is a model's, or one of such folders, which are looked into two levels deep; hidden ones
    are not. No weight is read. Says what it took for base, experts and domains, what it left out
    and why, and what is missing. Where several models could be the base, it asks for --base.
    """
    import shlex

    from mergeplan.cli.messages import report
    from mergeplan.onboarding.init import init

    made = init(folders, out, bases=bases, data=data, overwrite=overwrite, dry_run=dry_run)
    if as_json:
        print_document("init", {"written": not dry_run, **made.data()})
        return
    if dry_run:
        click.echo(made.text, nl=False)
    if not quiet:
        click.echo(made.summary(), err=dry_run)
    if not dry_run and not quiet:
        path = shlex.quote(str(made.path))
        first = "" if made.domains else "texts under its `data`, then: "
        report(f"\nwrote {path}; next: {first}mergeplan calibrate {path} -o run/ --dry-run")
