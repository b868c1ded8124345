r"""Tuned weights beside equal ones, over all subsets of a pool and over k.

    python -m tests.tools.tuned all POOL.yml ALL.npz                  # every equal-weight subset
    python -m tests.tools.tuned best ALL.npz POOL.yml --splits 5      # the best of them, by halves
    python -m tests.tools.tuned by-k POOL.yml TUNED.jsonl --by expert # tuned subsets of each k
    python -m tests.tools.tuned law POOL.yml ALL.npz TUNED.jsonl      # the law of both

`all` scores every document once a merge, in plain torch with the pool in memory, so that any cut of
the documents into halves can be had of it. `by-k` tunes k experts that follow each other in a
seeded circle of all, so that each has as large a part at every k, and the subsets of each k that
the curvature at all experts' tuned weights expects to be best. All go on where they stopped, and
stop after `--seconds`.
"""
