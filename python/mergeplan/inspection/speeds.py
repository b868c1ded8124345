"""How fast each method was on one machine: the basis of every estimate of time.

`tests/tools/measure_speeds.py` prints the table anew.
"""

# linear, ties and breadcrumbs twice, with one other job beside: the steadier run.
MEASURED_ON = "2026-11-30"
MACHINE = "2 cores of an AMD EPYC (Zen 5)"
BASIS = f"scaled from merges of four bfloat16 models on {MACHINE}, {MEASURED_ON}"

# Millions of input elements, each counted once, in a second of one thread, with all passes and the
# output: in 16-bit arithmetic, and in float32. Inputs in the page cache.
MILLION_ELEMENTS: dict[str, tuple[float, float]] = {
    "linear": (2.19e03, 2.14e03),
    "task_arithmetic": (1.59e03, 2.7e03),
    "ties": (927, 972),
    "dare_ties": (1.1e03, 1.12e03),
    "dare_linear": (1.37e03, 1.28e03),
    "breadcrumbs": (854, 928),
    "breadcrumbs_ties": (856, 871),
    "della": (559, 108),
    "della_linear": (538, 106),
    "slerp": (1.53e03, 1.78e03),
    "nuslerp": (1.1e03, 1.48e03),
    "multislerp": (469, 561),
    "model_stock": (1.01e03, 1.35e03),
    "sce": (315, 257),
    "karcher": (35.1, 397),
    "nearswap": (1.23e03, 1.59e03),
    "arcee_fusion": (70.4, 76.9),
    "ram": (1.84e03, 1.79e03),
    "ramplus_tl": (1.28e03, 1.14e03),
    "passthrough": (1.3e03, 984),
}
# Of a method of the user's own: one that sums, in numpy. Others take what they take.
OWN = (150.0, 150.0)
# Bytes of output in a second where mergekit computes them: TIES of two experts in float64, 24e6.
FALLBACK = 20e6
# Of a process until it merges: in all, and for each tensor.
START_SECONDS = 0.2
TENSOR_SECONDS = 2e-4
# Bytes in a second: making an output durable there, and a disk to compare with.
WRITE = 4e9
DISK = 1e9
