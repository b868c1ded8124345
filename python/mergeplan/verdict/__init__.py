"""One answer of all that is known: the base, a single expert, a merge, or what to measure.

May import selection, law and below; calibration, above, measures what a verdict asks for.
"""
