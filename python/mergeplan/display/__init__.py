"""How numbers, tables and pictures look everywhere, and how counts are read.

May import errors alone.
"""
