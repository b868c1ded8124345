"""The law of single subsets: a form of the loss in the experts' weights, fitted to few merges.

It knows neither files nor choices, so that the law of means above may lean on it as well.
"""
