"""`mergeplan doctor`."""

import click

from mergeplan.cli.documents import print_document


@click.command("doctor")
@click.option(
    "--devices", is_flag=True, help="Import torch, and let it say which GPUs it sees: seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(ctx: click.Context, devices: bool, as_json: bool) -> None:
    """Say what this machine has for mergeplan, what would be slow or fail and why, and what to do.

    Versions, extras, processor, memory, disks, limits, GPUs, and the hub's settings; nothing is
    written. Exit code 1: a plain merge lacks something.
    """
    from mergeplan.onboarding.doctor import doctor

    found = doctor(devices=devices)
    if as_json:
        checks = [vars(check) for check in found.checks]
        print_document("doctor", {"works": found.works, "checks": checks, **found.facts})
    else:
        click.echo(found.summary())
    if not found.works:
        ctx.exit(1)
