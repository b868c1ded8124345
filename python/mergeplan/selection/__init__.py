"""Which experts, and with what weights, by the law of single subsets.

May import law and below; what measures a choice lies above, in calibration.
"""
