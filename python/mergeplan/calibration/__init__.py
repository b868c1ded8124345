"""The closed loop: choose subsets, merge them in memory, measure their losses, fit, decide."""
