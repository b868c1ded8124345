"""What no merge on a device can exceed, and what drawing masks costs there. For `gpu_run`."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from mergeplan.merging.torch import philox


def n_bytes_on(device: str) -> int:
    """Of a copy: beyond any cache, and quick where a CPU stands in."""
    return (256 if device != "cpu" else 16) << 20


def bus_rates(device: str) -> dict[str, float]:
    """Bytes per second of plain pinned copies: to the device, from it, and both at once, summed."""
    is_gpu = device != "cpu"
    n_bytes = n_bytes_on(device)
    hosts = [torch.ones(n_bytes, dtype=torch.uint8, pin_memory=is_gpu) for _ in range(2)]
    there = [torch.empty(n_bytes, dtype=torch.uint8, device=device) for _ in range(2)]

    def up() -> None:
        there[0].copy_(hosts[0], non_blocking=True)

    def down() -> None:
        hosts[1].copy_(there[1], non_blocking=True)

    def both() -> None:
        with torch.cuda.stream(torch.cuda.Stream(device)) if is_gpu else torch.no_grad():
            up()
        down()

    found = {work.__name__: n_bytes / least_seconds(work, device) for work in (up, down, both)}
    return {**found, "both": 2 * found["both"]}


def memcpy_rate(threads: int, device: str) -> float:
    """Bytes per second of a copy in the host's memory by all threads."""
    n_bytes = n_bytes_on(device)
    source, target = (np.ones(n_bytes, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return n_bytes / least_seconds(
            lambda: list(pool.map(lambda part: np.copyto(*part), parts)), "cpu"
        )


def mask_rates(device: str) -> dict[str, float]:
    """Elements per second whose masks are drawn: by the form that is used, and by the plain one."""
    place = torch.device(device)
    counters = philox.Counters.of(7, [1, 2, 3, 4], place)
    limits = torch.full((4, 1), 0x5555_1234, dtype=torch.int64, device=place)
    count = 1 << (24 if place.type == "cuda" else 16)

    def rate(draw: philox.Draw) -> float:
        return 4 * count / least_seconds(lambda: draw(counters, 0, count, limits, True), device)

    return {"used": rate(philox.find_draw(place)[0]), "plain": rate(philox.plain_below)}


def least_seconds(work: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Of some rounds, after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])
