"""Try every class of transformers that has a language-model head, and write the table.

    python -m tests.tools.zoo --out docs/evidence/zoo.md

For each class a tiny base and two fine-tunes are merged by linear and TIES, with and without a
tokenizer's source, in one file and in shards, with tied and untied heads; see `trial`. Rows are
kept in `--cache`: a run that was stopped goes on, and `--again` tries what was not right. With
`timm` and `torchvision` installed, no class is left out for want of a package.
"""

import argparse
import os
import tempfile
from pathlib import Path

# mergekit's bits depend on them, see tests/conftest.py; workers inherit them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

from tests.tools.zoo.classes import all_species
from tests.tools.zoo.runner import Limits, Run
from tests.tools.zoo.table import faults_of, page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.zoo")
    parser.add_argument("--out", type=Path, help="where the table goes, a Markdown file")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "mergeplan-zoo")
    parser.add_argument("--again", action="store_true", help="try what was not right")
    parser.add_argument("--only", nargs="*", help="model types or class names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=180, help="the most one class may take")
    arguments = parser.parse_args()
    species = [
        one
        for one in all_species()
        if not arguments.only or {one.model_type, one.name} & set(arguments.only)
    ]
    run = Run(arguments.cache, arguments.again, arguments.jobs, Limits(arguments.seconds))
    rows = {}
    for place, row in run.rows(species):
        rows[place] = row
        faults = faults_of(row)
        print(
            len(rows), row["key"], row["seconds"], row["left_out"] or faults or "right", flush=True
        )
    if arguments.out:
        arguments.out.write_text(page([rows[place] for place in sorted(rows)]))


if __name__ == "__main__":
    main()
