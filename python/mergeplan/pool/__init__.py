"""A pool of experts: what `pool.yml` says, and which of its subsets to measure.

May import inspection and below; it reads headers, and in `geometry` weights.
"""
