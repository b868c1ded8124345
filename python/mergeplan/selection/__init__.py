"""The law of single subsets: what every subset and weighting of a pool gives, from few merges."""
