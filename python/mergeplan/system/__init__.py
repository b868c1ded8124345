"""The machine: durable files, memory, signals, progress on a terminal, Ray, YAML without surprises.

May import display and errors.
"""
