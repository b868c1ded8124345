"""The whole path on the bundled pool: measured losses → law → verdict → YAML → merge."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mergeplan.display.text import format_bytes
from mergeplan.law.fit import fit
from mergeplan.law.recommend import recommend
from mergeplan.measurements.file import load_measurements
from mergeplan.merging.merge import merge
from mergeplan.merging.options import MergeOptions
from mergeplan.pool.pool import load_pool
from mergeplan.selection.active import first_subsets
from mergeplan.system.files import make_folder
from mergeplan.system.writing import ExistsError, write_durably
from mergeplan.verdict.answer import predictions
from mergeplan.verdict.decide import decide
from mergeplan.verdict.field import Question
from mergeplan.verdict.write import contender_yaml, merge_to_write

DEMO_POOL = Path(__file__).parent / "pool"
_TEXTS = Path(__file__).parent / "texts"
METHOD = "task_arithmetic"
TARGET_LOSS = 1.9055
# The paper's three-point calibration (Section 4.2); k = 0 is the base.
CALIBRATION = (0, 1, 2, 4)
HELD_OUT = (6, 9)
# Merges that single subsets are predicted from.
MEASURED = 60


def run_demo(folder: Path, say: Callable[[str], object], *, keep: bool = True) -> None:
    """Run the demo; `merge.yml`, `merged` and what to go on with end up in `folder`.

    Args:
        folder: Made if need be.
        say: Is told each step.
        keep: Whether the reader can go on with the folder: then the pool's models are copied to
            `models` in it, and texts to measure them on to `texts`.

    Raises:
        SurroundingsError: The folder cannot be written to, or holds one of these.
    """
    begun = time.perf_counter()
    make_folder(folder)
    config, merged = folder / "merge.yml", folder / "merged"
    models, texts = folder / "models", folder / "texts"
    for path in (config, merged, models, texts):
        if os.path.lexists(path):
            raise ExistsError(f"`{path}` exists", "choose another folder, or move it away")
    pool_file = DEMO_POOL / "pool.yml"
    pool = load_pool(pool_file)
    size = pool.sizes[0]
    data = load_measurements(DEMO_POOL / "measurements.csv")
    say(f"the pool: a base of {size.count_params():,.0f} parameters, {len(size.experts)} experts")

    few = replace(data, rows=tuple(row for row in data.rows if row.k in CALIBRATION))
    law = fit(few, method=METHOD, pool_size=len(size.experts))
    say(f"\n1. fit the law to the mean losses of {METHOD} at k = 1, 2 and 4")
    curve = law.fits[0].law
    say(f"   L(k) = {curve.floor:.4f} + {curve.tail:.4f} / (k + {curve.offset:.3g})")
    everything = fit(data, method=METHOD).fits[0].series
    truth = {point.k: point.loss for point in everything.points}
    for k in HELD_OUT:
        say(f"   forecast for k = {k}: {curve.predict(k):.4f}, measured {truth[k]:.4f}")

    say(f"\n2. ask how many experts a loss of {TARGET_LOSS} takes")
    recommendation = recommend(law, TARGET_LOSS)
    say("   " + "\n   ".join(recommendation.summary(warnings=False).split("\n")[:4]))

    subsets = {(), *first_subsets(sorted(size.experts), MEASURED)}
    rows = [row for row in data.rows if row.method == METHOD and row.subset in subsets]
    say(f"\n3. ask what to do, by {MEASURED} of the 511 merges and the base")
    verdict = decide(rows, predictions(rows, None).found, Question())
    say("   " + verdict.summary().replace("\n", "\n   "))
    chosen = merge_to_write(verdict, anyway=True)
    if chosen is None:
        raise AssertionError("the bundled pool has merges")
    write_durably(config, contender_yaml(chosen, verdict, pool, by="demo"), replace=False)

    say(f"\n4. merge by {config.name}")
    report = merge(config, merged, MergeOptions())
    say(
        f"   {report.tensors} tensors, {format_bytes(report.written_bytes)}, "
        f"{report.seconds * 1000:.0f} ms"
    )
    losses = [
        row.loss_nats
        for row in data.rows
        if row.method == METHOD and row.subset == chosen.merge.subset
    ]
    if losses:
        say(f"   this very merge was measured: {losses[0]:.4f}; base: {everything.base_loss:.4f}")
    say(f"\ndone in {time.perf_counter() - begun:.2f} s")
    if not keep:
        say("nothing is kept; `mergeplan demo -o first` keeps models, texts and this merge")
        return
    for model in (size.base, *size.experts.values()):
        _copy(DEMO_POOL / model, models)
    _copy(_TEXTS, folder)
    kept = f"{config.name}, {merged.name}/, {models.name}/ (the base and its experts)"
    say(f"kept in {folder}: {kept}, {texts.name}/ (held-out text of four kinds)")
    say(f"next: mergeplan init {folder} -o pool.yml")


def _copy(source: Path, into: Path) -> None:
    """A folder of files, with the permissions of new ones."""
    for path in sorted(source.iterdir()):
        make_folder(into / source.name)
        write_durably(into / source.name / path.name, path.read_bytes(), replace=False)
