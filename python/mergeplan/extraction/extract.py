"""Stream a model past its base, and write the factors of their difference as an adapter of peft."""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from mergeplan.errors import InputError, SurroundingsError
from mergeplan.extraction.deltas import Deltas
from mergeplan.extraction.factors import Factors, Rule, factorise, squared_error, squared_norm
from mergeplan.extraction.file import AdapterFile, rounded, stored_name
from mergeplan.extraction.layers import is_saved, settings, stores_inputs_first, why_left_out
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.publishing import is_in_steps, publish, refuse_occupied, refuse_overlap
from mergeplan.merging.workfolder import DATA, HEAD, create_work, remove_work, sweep
from mergeplan.planning.document import Job
from mergeplan.system.blas import one_thread
from mergeplan.system.files import make_folder, sync_folder
from mergeplan.system.private import private_name
from mergeplan.system.progress import Progress
from mergeplan.system.writing import write_durably, writing

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Wanted:
    """What is to be extracted; of the first three one is given.

    Attributes:
        rank: Of every layer.
        energy: Share of each layer's squared singular values that is kept at least.
        max_error: Relative error of each layer that is not exceeded, as its factors are stored.
        dtype: Torch's name of what factors are stored in.
        save_modules: Ends of the names of modules that are stored whole.
        seed: Of the sketches.
    """

    rank: int | None = None
    energy: float | None = None
    max_error: float | None = None
    dtype: str = "float32"
    save_modules: tuple[str, ...] = ()
    seed: int = 0

    @property
    def rule(self) -> Rule:
        if self.energy is not None:
            return Rule(left_out=1 - self.energy)
        return Rule(self.rank) if self.max_error is None else Rule(left_out=self.max_error**2)


@dataclass(frozen=True)
class Layer:
    """One tensor that became factors.

    Attributes:
        norm: Of its difference.
        error: Norm of what the stored factors leave of it, by the norm of the difference.
    """

    tensor: str
    shape: tuple[int, ...]
    rank: int
    norm: float
    error: float


@dataclass(frozen=True)
class LeftOut:
    """One tensor that did not.

    Attributes:
        reason: `saved whole`, `unchanged`, or what it is.
        norm: Of its difference; `None` where the tensor is too large to be measured in the memory
            that the layers need, or is saved.
    """

    tensor: str
    shape: tuple[int, ...]
    reason: str
    norm: float | None


@dataclass(frozen=True)
class Extraction:
    """What was written.

    Attributes:
        error: Relative error of all layers as one vector.
    """

    out: Path
    layers: tuple[Layer, ...]
    left_out: tuple[LeftOut, ...]
    error: float
    written_bytes: int


def extract(
    model: str,
    base: str,
    out: Path,
    wanted: Wanted,
    options: MergeOptions,
    progress: Progress | None = None,
) -> Extraction:
    """Write an adapter that makes `model` of `base`, as far as its ranks reach.

    Layers are read and factorised side by side, as many as the memory limit holds and at least
    one; the file does not depend on how many.

    Args:
        model, base: As a config names models.
        out: Folder to create; it is absent or complete at any moment.

    Raises:
        MissingInputError: A model is not there.
        InputError: They do not fit, are equal, hold values that are not finite, or a layer cannot
            be factorised as it is wanted.
        SurroundingsError: The output is in the way.
    """
    out = out.resolve()
    equal = InputError(
        f"`{model}` equals `{base}` in every linear layer: there is nothing to extract",
        "name the fine-tuned model, and the base that it was trained from",
    )
    if model == base:
        raise equal
    deltas = Deltas(model, base, options, with_model=bool(wanted.save_modules))
    refuse_overlap(out, deltas.folders, overwrite=False)
    refuse_occupied(out, (CONFIG, WEIGHTS), overwrite=False)
    if is_in_steps(out):
        raise SurroundingsError(f"output `{out}` is a mount point", "choose a folder inside it")
    _check_saved(wanted, deltas)
    with _working(out) as data:
        with writing(data / WEIGHTS, replace=False) as file, one_thread():
            adapter = AdapterFile(file, _names(deltas.jobs))
            layers, left_out = _fill(adapter, deltas, wanted, progress)
            if not layers:
                raise equal
            written = adapter.finish()
        text = settings(
            {_module(layer.tensor): layer.rank for layer in layers},
            [job.tensor for job in deltas.jobs],
            base=base,
            saved=wanted.save_modules,
            transposed=stores_inputs_first(deltas.config),
            causal=any("CausalLM" in str(one) for one in deltas.config.get("architectures") or ()),
        )
        write_durably(data / CONFIG, json.dumps(text, indent=2) + "\n", replace=False)
        sync_folder(data)
        publish(data, out, {})
    total = sum(layer.norm**2 for layer in layers)
    error = math.sqrt(sum((layer.norm * layer.error) ** 2 for layer in layers) / total)
    return Extraction(out, tuple(layers), tuple(left_out), error, written)


@contextmanager
def _working(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; what is left of it goes, also after a kill."""
    make_folder(out.parent)
    sweep(out.parent)
    folder = out.with_name(private_name())
    held = create_work(folder, f'{HEAD}"{CONFIG}", "{WEIGHTS}"]}}\n')
    if held is None:
        raise SurroundingsError(f"`{folder}` was made by another program", "run it again")
    try:
        yield folder / DATA
    finally:
        with suppress(OSError):
            remove_work(folder, held)


def _fill(
    adapter: AdapterFile, deltas: Deltas, wanted: Wanted, progress: Progress | None
) -> tuple[list[Layer], list[LeftOut]]:
    layers: list[Layer] = []
    left_out: list[LeftOut] = []
    need = max((_need(job) for job in deltas.jobs if _reason(job, wanted) is None), default=0)
    workers = max(1, min(deltas.threads, deltas.memory_bytes // max(need, 1)))
    total, done = sum(job.n_bytes for job in deltas.jobs), 0
    waiting: deque[tuple[Job, Future[_Done]]] = deque()
    left = iter(deltas.jobs)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while len(waiting) < workers and (job := next(left, None)) is not None:
                    waiting.append((job, pool.submit(_work, job, deltas, wanted, need)))
                if not waiting:
                    return layers, left_out
                job, future = waiting.popleft()
                found = future.result()
                if isinstance(found, LeftOut):
                    left_out.append(found)
                    if found.reason == _SAVED:
                        raw = deltas.stored(job)
                        adapter.add(_PREFIX + job.tensor, raw, deltas.stored_dtype(job), job.shape)
                else:
                    layer, factors = found
                    for letter, one in (("A", factors.a), ("B", factors.b)):
                        name = f"{_PREFIX}{_module(job.tensor)}.lora_{letter}.weight"
                        raw = rounded(one, wanted.dtype)[0]
                        adapter.add(name, raw, stored_name(wanted.dtype), one.shape)
                    layers.append(layer)
                done += job.n_bytes
                if progress is not None:
                    progress(done, total)
        finally:
            for _, future in waiting:
                future.cancel()


_SAVED = "saved whole"
_Done = LeftOut | tuple[Layer, Factors]


def _work(job: Job, deltas: Deltas, wanted: Wanted, need: int) -> _Done:
    """One tensor: its difference, its factors, and what they leave of it."""
    reason = _reason(job, wanted)
    if reason is not None:
        small = reason != _SAVED and job.out_dtype == "F32" and job.n_bytes <= need
        norm = math.sqrt(squared_norm(deltas.read(job))) if small else None
        return LeftOut(job.tensor, job.shape, "unchanged" if norm == 0 else reason, norm)
    delta = deltas.read(job)
    total = squared_norm(delta)
    if total == 0:
        return LeftOut(job.tensor, job.shape, "unchanged", 0.0)
    if stores_inputs_first(deltas.config):
        delta = delta.T
    from numpy.linalg import LinAlgError

    rule, side = wanted.rule, min(job.shape)
    while True:
        try:
            # The sketch of a layer does not depend on which others there are.
            factors = factorise(delta, rule, wanted.seed ^ crc32(job.tensor.encode()) << 64)
            a, b = (rounded(one, wanted.dtype)[1] for one in (factors.a, factors.b))
        except LinAlgError as error:
            raise InputError(
                f"tensor `{job.tensor}`: its SVD does not converge: {error}"
            ) from error
        except InputError as error:
            raise InputError(f"tensor `{job.tensor}`: {error.message}", error.hint) from error
        left = math.sqrt(squared_error(delta, a, b) / total)
        if wanted.max_error is None or left <= wanted.max_error:
            return Layer(job.tensor, job.shape, factors.rank, math.sqrt(total), left), factors
        if rule.rank is not None and (rule.rank >= side or factors.rank < rule.rank):
            raise InputError(
                f"tensor `{job.tensor}`: expected a relative error of {wanted.max_error:g} at the"
                f" most, found {left:.3g} at its full rank, {factors.rank}, in {wanted.dtype}",
                "allow more, or take `--dtype float32`",
            )
        # What rounding to the dtype added is made up for by a larger rank.
        rule = Rule(min(side, factors.rank + max(1, factors.rank // 8)))


def _reason(job: Job, wanted: Wanted) -> str | None:
    if is_saved(job.tensor, wanted.save_modules):
        return _SAVED
    return why_left_out(job) if job.out_dtype == "F32" else "no floating-point values"


def _need(job: Job) -> int:
    """Bytes to factorise a tensor: itself, strips, the sketch, or its Gram matrix."""
    return 2 * job.n_bytes + 24 * min(job.shape) ** 2


def _names(jobs: tuple[Job, ...]) -> list[str]:
    return [f"{_PREFIX}{job.tensor}.lora_{letter}.weight" for job in jobs for letter in "AB"]


def _module(tensor: str) -> str:
    return tensor.removesuffix(".weight")


def _check_saved(wanted: Wanted, deltas: Deltas) -> None:
    for name in wanted.save_modules:
        if not any(is_saved(job.tensor, (name,)) for job in deltas.jobs):
            raise InputError(
                f"`--save-module {name}`: no module is called so",
                "name the end of a module's name, such as `embed_tokens`; a head that is tied to"
                " its embedding is saved with that",
            )


def as_data(found: Extraction, model: str, base: str, wanted: Wanted) -> Mapping[str, object]:
    """What `--json` prints of it."""
    return {
        "out": found.out,
        "model": model,
        "base": base,
        "rank": wanted.rank,
        "energy": wanted.energy,
        "max_error": wanted.max_error,
        "dtype": wanted.dtype,
        "error": found.error,
        "written_bytes": found.written_bytes,
        "layers": found.layers,
        "left_out": found.left_out,
    }
