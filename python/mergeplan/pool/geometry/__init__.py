"""Where the experts of a pool lie around their base, without any evaluation.

May import the rest of pool, and below.
"""
