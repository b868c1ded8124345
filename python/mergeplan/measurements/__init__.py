"""Measured losses of merges: what a row says, the columns of `measurements.csv`, reading, writing.

May import `system` and what is below; knows neither pools nor the law.
"""
