"""Published ways to a merge's weights, by plain scripts; each goes on where it stopped.

    python -m tests.tools.tuned.published POOL.yml OUT.pt --way adamerging|dam|cma --split 0

The pool is in memory, and its model a function of a flat vector. Read of each, and what is ours:

AdaMerging, by layer (arXiv 2310.02575; github.com/EnnengYang/AdaMerging,
src/main_layer_wise_adamerging.py): a coefficient for each task vector and each parameter tensor,
from 0.3, clamped to 0 and 1; 500 steps of Adam at 1e-3 on the entropy of the predictions, 16 texts
of each domain a step. Ours: the entropy is the mean over tokens, where that of images has one
prediction each; the code takes a second batch of each data set, which is left out.

DAM (arXiv 2410.08371; github.com/arcee-ai/DAM, README.md, dam/train_dam.py, dam/modeling/dam.py,
dam/custom_trainer/dam_trainer.py; the paper's own text was read to its introduction alone): a
coefficient for each model, the base too, and each input column of every linear layer, column of the
embedding and element of a norm, and one for a bias; from 1 / models; no other function of them. The
loss is KL(expert of a domain || merge) on its domain at a temperature of 2, times 4, over tokens
and the batch of 4, summed over domains and averaged over 8 such batches; and 0.01 times the mean
cosine of pairs of models' coefficients, 1e-6 times their L1 and 1e-5 times their L2 norms, summed
over modules. AdamW at 1e-2 with a decay of 0.01, falling to zero linearly, gradients of norm 1 at
most, three epochs of 1,729 examples a domain by 32: 162 steps. Ours: the same 32 texts again and
again where there are no 1,729; float32 where theirs is bfloat16.

CMA-ES: of the `cma` package, a weight for each expert, from equal weights at a step of 0.1.
"""

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch

from mergeplan.pool.pool import load_pool
from tests.tools.tuned.memory import InMemory, cut, texts_of


class Problem:
    """A pool and one split of its documents."""

    def __init__(self, pool, split):
        self.memory = InMemory(pool)
        self.model = self.memory.model
        with cut(pool, split) as found:
            self.choosing, self.reporting = (
                texts_of(found, half=half) for half in ("selection", "check")
            )
        batches = self.choosing.batches_by_domain(torch.device("cpu"), batch_tokens=4096)
        self.tokens = sum(int(d.n_tokens.sum()) for d in self.choosing.domains.values())
        self.rows = {name: _rows(some) for name, some in batches.items()}
        shapes = [one.shape for one in self.model.parameters()]
        self.shapes = dict(zip(self.memory.names, shapes, strict=True))

    def logits(self, flat, ids):
        parts = flat.split(self.memory.sizes)
        named = {n: p.view(s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}
        call = {"input_ids": ids, "use_cache": False}
        return torch.func.functional_call(self.model, named, kwargs=call).logits

    def value(self, flat, texts):
        self.memory.flat.copy_(flat)
        return texts.score(self.model).macro().loss_nats


def _rows(batches):
    """Padded ids of a domain, and where a next token is scored, both (documents, longest)."""
    longest = max(batch.ids.shape[1] for batch in batches)
    ids, scored = [], []
    for batch in batches:
        n, width = batch.ids.shape
        there = torch.zeros(n, batch.keep).flatten().index_fill(0, batch.places, 1)
        for found, one in ((ids, batch.ids), (scored, there.view(n, batch.keep))):
            left = width - batch.keep if one.shape[1] < width else 0
            found.append(torch.nn.functional.pad(one, (left, longest - width)))
    return torch.cat(ids), torch.cat(scored)


class AdaMerging:
    steps, batch = 500, 16

    def __init__(self, problem):
        self.problem, memory = problem, problem.memory
        n = len(memory.sizes)
        self.of = torch.repeat_interleave(torch.arange(n), torch.tensor(memory.sizes))
        self.raw = torch.full((len(memory.experts), n), 0.3, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.raw], lr=1e-3)
        self.schedule = None

    def merged(self):
        memory = self.problem.memory
        weights = self.raw.clamp(0, 1)[:, self.of]
        return memory.base + (weights * memory.deltas).sum(0)

    def loss(self, flat, order):
        found, used = 0.0, 0.0
        for ids, scored in self.problem.rows.values():
            some = order.permutation(len(ids))[: self.batch]
            logs = torch.log_softmax(self.problem.logits(flat, ids[some]), -1)
            entropy = -(logs.exp() * logs).sum(-1)
            found = found + (entropy * scored[some]).sum() / scored[some].sum()
            used += float(scored[some].sum())
        return found, used

    trained = property(lambda self: {"raw": self.raw})


class Dam:
    steps, small, batch, heat = 162, 4, 32, 2.0

    def __init__(self, problem):
        self.problem, memory = problem, problem.memory
        self.n = len(memory.experts) + 1
        self.columns = {}
        for name, shape in problem.shapes.items():
            wide = 1 if name.endswith("bias") else shape[-1]
            self.columns[name] = torch.full((self.n, wide), 1 / self.n, requires_grad=True)
        self.optimizer = torch.optim.AdamW(self.columns.values(), lr=1e-2, weight_decay=0.01)
        falling = lambda step: max(0.0, 1 - step / self.steps)  # noqa: E731
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, falling)
        self.taught = {}
        with torch.no_grad():
            for expert, name in enumerate(memory.experts):
                flat = memory.base + memory.deltas[expert]
                ids, _ = problem.rows[name]
                self.taught[name] = torch.softmax(problem.logits(flat, ids) / self.heat, -1)

    def merged(self):
        memory, first, parts = self.problem.memory, 0, []
        for (name, shape), count in zip(self.problem.shapes.items(), memory.sizes, strict=True):
            there = slice(first, first + count)
            base = memory.base[there].view(1, *shape)
            each = torch.cat([base, base + memory.deltas[:, there].view(-1, *shape)])
            scale = self.columns[name].view(self.n, *[1] * (len(shape) - 1), -1)
            parts.append((scale * each).sum(0).flatten())
            first += count
        return torch.cat(parts)

    def loss(self, flat, order):
        problem, found, used = self.problem, 0.0, 0.0
        for name, (ids, scored) in problem.rows.items():
            some = torch.as_tensor(order.permutation(len(ids))[: self.batch])
            logs = torch.log_softmax(problem.logits(flat, ids[some]) / self.heat, -1)
            taught = self.taught[name][some]
            apart = (taught * (taught.clamp(min=1e-30).log() - logs)).sum(-1)
            mean = (apart * scored[some]).sum() / scored[some].sum()
            found = found + self.heat**2 * mean / self.small
            used += float(scored[some].sum())
        upper = torch.triu_indices(self.n, self.n, 1)
        for one in self.columns.values():
            unit = one / one.norm(dim=1, keepdim=True).clamp(min=1e-8)
            alike = (unit[upper[0]] * unit[upper[1]]).sum(1).mean()
            if len(one[0]) > 1:
                found = found + 0.01 * alike
            found = found + 1e-6 * one.abs().sum() + 1e-5 * one.norm(dim=1).sum()
        return found, used

    trained = property(lambda self: self.columns)


def by_gradients(way, problem, args, state):
    made, begun = way(problem), time.monotonic()
    if state:
        for name, one in made.trained.items():
            one.data.copy_(state["trained"][name])
        made.optimizer.load_state_dict(state["optimizer"])
        if made.schedule:
            made.schedule.load_state_dict(state["schedule"])
    done, passes = state.get("done", 0), state.get("passes", 0.0)
    while done < made.steps and time.monotonic() - begun < args.seconds:
        made.optimizer.zero_grad()
        loss, used = made.loss(made.merged(), np.random.default_rng([args.split, done]))
        loss.backward()
        if made.schedule:
            torch.nn.utils.clip_grad_norm_(made.trained.values(), 1.0)
        made.optimizer.step()
        if made.schedule:
            made.schedule.step()
        done, passes = done + 1, passes + 3 * used / problem.tokens
    found = {"trained": {name: one.detach() for name, one in made.trained.items()}}
    found |= {"optimizer": made.optimizer.state_dict(), "done": done, "passes": passes}
    found |= {"schedule": made.schedule.state_dict()} if made.schedule else {}
    with torch.no_grad():
        return found, made.steps, made.merged()


def by_cma(problem, args, state):
    import cma

    memory, begun = problem.memory, time.monotonic()
    n = len(memory.experts)
    options = {"maxfevals": args.evaluations, "seed": args.split + 1, "verbose": -9}
    search = cma.CMAEvolutionStrategy([1 / n] * n, 0.1, options)
    if state:
        search = pickle.loads(state["search"])
    at = lambda x: memory.base + torch.tensor(x, dtype=torch.float32) @ memory.deltas  # noqa: E731
    while search.countevals < args.evaluations and time.monotonic() - begun < args.seconds:
        asked = search.ask()
        search.tell(asked, [problem.value(at(one), problem.choosing) for one in asked])
    done = search.countevals
    found = {"search": pickle.dumps(search), "done": done, "passes": done}
    return found, args.evaluations, at(search.result.xbest)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--way", choices=("adamerging", "dam", "cma"), required=True)
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=200, help="of CMA-ES")
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    problem = Problem(load_pool(args.pool), args.split)
    state = torch.load(args.out, weights_only=False) if args.out.exists() else {}
    begun, spent = time.process_time(), state.get("spent", 0.0)
    if args.way == "cma":
        found, wanted, flat = by_cma(problem, args, state)
    else:
        way = {"adamerging": AdaMerging, "dam": Dam}[args.way]
        found, wanted, flat = by_gradients(way, problem, args, state)
    found["spent"] = spent + time.process_time() - begun
    torch.save(found, args.out)
    values = [problem.value(flat, half) for half in (problem.choosing, problem.reporting)]
    print(
        f"{args.way} split {args.split}: chosen by {values[0]:.4f}, reported {values[1]:.4f},"
        f" {found['passes']:.0f} passes, {found['spent']:.0f} CPU s; {found['done']} of {wanted}",
        flush=True,
    )


if __name__ == "__main__":
    main()
