"""What `merge` and `average` do once they know what is wanted: check, merge, push, report."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.documents import head, print_document
from mergeplan.cli.messages import report, warn
from mergeplan.cli.pushing import push_merged, push_to

if TYPE_CHECKING:
    from mergeplan.hub.push import Prepared, Pushed
    from mergeplan.merging.checked import CheckedMerge, CheckedMerges
    from mergeplan.merging.merge import MergeReport
    from mergeplan.merging.options import MergeOptions, MergeRequest
    from mergeplan.merging.runner import Runner


@dataclasses.dataclass(frozen=True)
class Running:
    """How to go about some merges.

    Attributes:
        out: Where they go, for the report.
        many: Whether they are several, or one of a list of one.
    """

    out: Path
    many: bool
    ray: str | None
    push_to_hub: str | None
    public: bool
    dry_run: bool
    as_json: bool
    quiet: bool

    @classmethod
    def of(cls, given: dict[str, Any], out: Path, *, many: bool) -> "Running":
        """What the keyword arguments of a command say of it, which are taken out."""
        names = ("ray", "push_to_hub", "public", "dry_run", "as_json", "quiet")
        return cls(out, many, **{name: given.pop(name) for name in names})


def run_merges(
    read: Callable[[], "Sequence[MergeRequest]"], options: "MergeOptions", how: Running
) -> None:
    """Run merges, or check them, and say what was done.

    Args:
        read: Gives the merges; files that they need are read once the options are known to fit.

    Raises:
        MergeplanError: As for `merge_many`.
    """
    from mergeplan.merging.merge import merge_many
    from mergeplan.merging.turns import check_merges
    from mergeplan.system.progress import ProgressLine

    as_json, quiet = how.as_json, how.quiet
    push = push_to(
        how.push_to_hub,
        many=how.many,
        card=options.write_model_card,
        public=how.public,
        licence=options.license,
        quiet=quiet,
    )
    wanted = read()
    if how.dry_run:
        checked = check_merges(wanted, options)
        found = push.prepare(checked[0], create=False) if push else None
        _say_what_would_be(checked, options, as_json, quiet, found)
        return
    line = ProgressLine(quiet=quiet)
    prepared: list[Prepared] = []

    def approve(checked: "CheckedMerges") -> None:
        if push is not None:
            prepared.append(push.prepare(checked.merges[0]))

    try:
        reports = merge_many(wanted, options, line, _runner(how.ray), approve)
    except BaseException as error:
        line.clear()
        for note in getattr(error, "__notes__", ()):
            if "`resume`" not in note:
                continue  # a hint, which is printed with the message
            click.echo(note.replace("`resume`", f"`{_again()}`"), err=True)
        raise
    pushed = push_merged(push, prepared[0], options.threads, line, _again()) if push else None
    line.clear()
    _say_what_was_done(reports, how, pushed)


def _say_what_was_done(
    reports: "Sequence[MergeReport]", how: Running, pushed: "Pushed | None"
) -> None:
    from mergeplan.merging.merge import merged_line

    if not how.quiet:
        for warning in sorted({warning for report in reports for warning in report.warnings}):
            warn(warning)
    if how.as_json:
        data = [dataclasses.asdict(report) for report in reports]
        if how.many:
            print_document("merges", {"merges": data})
        else:
            hub = {"hub": dataclasses.asdict(pushed)} if pushed else {}
            print_document("merge", {**data[0], **hub})
    else:
        report(merged_line(reports, how.out))
        if pushed:
            report(pushed.line())


def _again() -> str:
    """The command that goes on."""
    given = [word for word in sys.argv[1:] if word not in ("--resume", "--discard")]
    return shlex.join(["mergeplan", *given, "--resume"])


def _say_what_would_be(
    checked: "Sequence[CheckedMerge]",
    options: "MergeOptions",
    as_json: bool,
    quiet: bool,
    push: "Prepared | None",
) -> None:
    """What `inspect` says of merges that can run, and of a push; as JSON, the merges' plans."""
    from mergeplan.inspection.inspect import inspect
    from mergeplan.planning.document import to_json

    found = [] if as_json else [inspect([one.config], options, out=one.out) for one in checked]
    told = dict.fromkeys(w for one in found for merge in one.merges for w in merge.warnings)
    told |= dict.fromkeys(warning for one in checked for warning in one.warnings)
    for warning in () if quiet else told:
        warn(warning)
    if as_json:
        plans = [one.plan.data for one in checked]
        hub = {"hub": push.data()} if push else {}
        data = {**head("plan"), "plans": plans, "warnings": list(told), **hub}
        click.echo(to_json(data, indent=1))
    for one in found:
        click.echo(one.summary())
    if push and not as_json:
        click.echo(push.line())
    if not all(one.fits for one in found):
        click.get_current_context().exit(1)


def _runner(ray: str | None) -> "Runner | None":
    if ray is None:
        return None
    from mergeplan.merging.cluster_runner import ClusterRunner
    from mergeplan.system.ray import connect

    return ClusterRunner(connect(ray))
