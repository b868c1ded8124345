"""Which experts, and with what weights: the law of single subsets, fitted to few merges.

May import law and below; what measures a choice lies above, in calibration.
"""
