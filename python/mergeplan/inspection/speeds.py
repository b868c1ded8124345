"""How fast each method was on one machine: the basis of every estimate of time.

`tests/tools/measure_speeds.py` prints the table anew.
"""

# linear, task_arithmetic, ties, dare and della three days later than the rest, on two cores of a
# Zen 4 in use: the better of two runs.
MEASURED_ON = "2026-11-22"
MACHINE = "2 cores of an AMD EPYC (Zen 5)"
BASIS = f"scaled from merges of four bfloat16 models on {MACHINE}, {MEASURED_ON}"

# Millions of input elements, each counted once, in a second of one thread, with all passes and the
# output: in 16-bit arithmetic, and in float32. Inputs in the page cache.
MILLION_ELEMENTS: dict[str, tuple[float, float]] = {
    "linear": (1.8e03, 1.64e03),
    "task_arithmetic": (1.56e03, 1.88e03),
    "ties": (646, 484),
    "dare_ties": (632, 691),
    "dare_linear": (766, 841),
    "breadcrumbs": (604, 335),
    "breadcrumbs_ties": (521, 310),
    "della": (182, 85.2),
    "della_linear": (196, 86.9),
    "slerp": (752, 703),
    "nuslerp": (504, 725),
    "multislerp": (288, 339),
    "model_stock": (663, 847),
    "sce": (212, 190),
    "karcher": (20.3, 218),
    "nearswap": (358, 1.26e03),
    "arcee_fusion": (56.4, 58),
    "ram": (1.04e03, 1.04e03),
    "ramplus_tl": (927, 727),
    "passthrough": (567, 663),
}
# Bytes of output in a second where mergekit computes them: TIES of two experts in float64, 24e6.
FALLBACK = 20e6
# Of a process until it merges: in all, and for each tensor.
START_SECONDS = 0.2
TENSOR_SECONDS = 2e-4
# Bytes in a second: making an output durable there, and a disk to compare with.
WRITE = 4e9
DISK = 1e9
