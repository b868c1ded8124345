"""Sequential calibration: what to measure first, what next, and when to stop. No I/O."""
