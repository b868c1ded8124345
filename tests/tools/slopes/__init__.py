r"""How well few merges predict all subsets of a pool where each tells its slopes too.

    python -m tests.tools.slopes measure POOL/pool.yml MERGES.npz --all --designs 20 --designs 30
    python -m tests.tools.slopes judge MERGES.npz --design 20:slopes --design 60:values --domains
    python -m tests.tools.slopes rounds POOL/pool.yml MERGES.npz --experts 6 --later gain

`measure` merges and scores in plain torch, with the whole pool in memory and slopes by autograd:
it shares nothing with the package but the choice of documents and of designs. `--all` are values of
all subsets, `--random N` of so many of each k, single experts and all beside them; slopes are taken
at the merges of the designs, five seeds each; `--free N` are values at 2 N weights of other sums.
It goes on where it stopped. `judge` fits designs and scores them on all that they do not measure.
`rounds` lets the rounds for the best subset run to their end with slopes of no merges, of a few and
of all, and counts forward passes.
"""
