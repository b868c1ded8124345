"""Which GPUs there are, by the driver's files, and whether torch as it is built uses them."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mergeplan.display.text import format_bytes
from mergeplan.onboarding.states import OK, SLOW, Check

_BUILT_FOR = re.compile(r"^(cuda|hip)\b[^=]*=\s*'([^']+)'", re.MULTILINE)


def gpu_checks(facts: dict[str, Any], root: Path, *, ask_torch: bool) -> Iterator[Check]:
    """A check of the GPUs.

    Args:
        facts: Gets what was found as `gpus` and `torch_built_for`.
        ask_torch: Import torch, which knows; else the driver's files and torch's version tell.
    """
    names, built_for = _by_driver(root), _built_for()
    facts |= {"gpus": names, "torch_built_for": built_for, "torch_sees": None}
    found = ", ".join(names) or "none"
    if ask_torch and find_spec("torch") is not None:
        sees = facts["torch_sees"] = _by_torch()
        words = [f"{one['name']} ({format_bytes(one['memory_bytes'])})" for one in sees]
        if not sees and names:
            yield Check(
                SLOW,
                "GPUs",
                found,
                f"torch, built for {built_for or 'CPUs'}, sees none of them",
                "see CUDA_VISIBLE_DEVICES, the driver's version (`nvidia-smi`), and torch's build",
            )
        else:
            yield Check(OK, "GPUs", f"torch sees {', '.join(words) or 'none'}")
    elif names and built_for is None:
        built = "built for CPUs" if find_spec("torch") else "not installed"
        yield Check(
            SLOW,
            "GPUs",
            found,
            f"torch is {built}: `--device cuda` fails, and models are scored on the CPU",
            "install torch for your GPU: https://pytorch.org/get-started/locally",
        )
    elif names:
        yield Check(OK, "GPUs", f"{found}; torch is built for {built_for}; `--devices` asks it")
    else:
        yield Check(OK, "GPUs", "none: models are scored on the CPU")


def _by_driver(root: Path) -> list[str]:
    """Names of NVIDIA's GPUs, and the number of AMD's."""
    names = []
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        names += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]
    for file in sorted((root / "sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")):
        try:
            names += ["an AMD GPU"] * (file.read_text("utf-8", "replace").strip() not in ("", "0"))
        except OSError:
            continue
    return names


def _built_for() -> str | None:
    """What torch was built for, such as `cuda 12.4`, by its version file; `None` for CPUs alone."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8", "replace")
    except OSError:
        return None
    found = _BUILT_FOR.search(text)
    return f"{found[1]} {found[2]}" if found else None


def _by_torch() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    every = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [{"name": str(one.name), "memory_bytes": int(one.total_memory)} for one in every]
