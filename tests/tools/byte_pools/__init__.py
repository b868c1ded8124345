r"""Pools of many small byte-level experts, made on the machine that needs them.

    python -m tests.tools.byte_pools collect TEXTS --folder SITE_PACKAGES --folder CRATES
    python -m tests.tools.byte_pools train TEXTS POOL --experts 18 --over python
    python -m tests.tools.byte_pools measure POOL/pool.yml LOSSES.csv --random 240
    mergeplan similarity POOL/pool.yml -o GEOMETRY.json
    python -m tests.tools.byte_pools measure POOL/pool.yml LOSSES.csv --geometry GEOMETRY.json \
        --trial 4 --search

`collect` takes texts of many kinds (programming languages, markup, data, manuals, translations)
from the installed Debian packages and from folders that hold one package in each folder, such as a
Python `site-packages`, cargo's registry or what `dpkg -x` and `unzip` unpack. Training and held-out
texts are of different packages, share no 13 tokens in a row, and none comes twice. `train` makes a
base on all kinds and one expert on each, one of them over-trained. Both give what a `pool.yml`
names, and go on where they stopped. `measure` averages chosen subsets in memory and scores them on
held-out text of every kind, a fraction of a second each; `Judge.loss` does so on demand. What the
trial of large pools asks for (`--trial`, `python -m tests.tools.trial --only large`) and the
neighbours of the lowest (`--search`) are measured likewise: `tests/data/byte_pool_*.csv`.

Needs torch, transformers and tokenizers. What is collected stays under its own licences: weights
and losses may be given away, texts stay where they are.
"""
