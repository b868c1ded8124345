"""The first minute: a pool file made of folders, and what this machine lacks."""
