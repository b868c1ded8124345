"""The option of every command that writes one file."""

from collections.abc import Iterable
from pathlib import Path

import click

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")


def refuse_outputs(
    outputs: Iterable[Path | None],
    *,
    overwrite: bool,
    source: Path | None = None,
    pool_file: Path | None = None,
    others: Iterable[Path | None] = (),
) -> None:
    """Refuse, before the work, files that could not be written at its end.

    Args:
        source: A table or a run, which is read.
        pool_file: Read with all that it names.
        others: What else is read.

    Raises:
        MergeplanError: See `refuse_existing`; or two outputs are one file, or the pool is at fault.
    """
    from mergeplan.calibration.run_folder import files_read
    from mergeplan.pool.pool import load_pool
    from mergeplan.system.writing import refuse_existing, refuse_one_place

    wanted = [path for path in outputs if path is not None]
    refuse_one_place(wanted)
    read = [*others, *(files_read(source) if source is not None else ())]
    if pool_file is not None:
        read.append(pool_file)
        # A pool is looked into only where something may be replaced.
        pool = load_pool(pool_file) if overwrite and any(p.exists() for p in wanted) else None
        for size in pool.sizes if pool else ():
            read += [size.base, *size.experts.values()]
        read += pool.data.values() if pool else ()
    for path in wanted:
        refuse_existing(path, overwrite=overwrite, inputs=read)
