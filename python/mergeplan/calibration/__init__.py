"""The closed loop: choose subsets, merge them in memory, measure their losses, fit, decide.

May import selection and everything below it; only the cli imports it.
"""
