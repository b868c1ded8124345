"""Looking at what is there: checkpoints and merges before they run, outputs after, by comparison.

May import merging and below, to foresee what a merge would take; it writes nothing.
"""
