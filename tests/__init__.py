"""Tests of mergeplan. `tests.support` is what they share."""
