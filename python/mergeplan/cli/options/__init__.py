"""Options that several commands share, and the types of their values.

May import what the commands may, though not the commands.
"""
