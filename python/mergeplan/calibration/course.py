"""provisional"""
from dataclasses import dataclass
from math import comb
from mergeplan.designs import choose_subsets
from mergeplan.subsets import SubsetMerge, subset_merge

@dataclass(frozen=True)
class Goal:
    ks: tuple[int, ...] = (1, 2, 4)
    count: int = 9
    seed: int = 0

@dataclass(frozen=True)
class Round:
    merges: tuple[SubsetMerge, ...]
    reason: str

@dataclass(frozen=True)
class Stop:
    reason: str

class Course:
    def __init__(self, pool, size, label, goal):
        self.pool, self.size, self.label, self.goal = pool, size, label, goal
        self.most_merges = 100
    def next(self, measured):
        if measured:
            return Stop("done")
        names = list(self.pool.sizes[self.size].experts)
        merges = [subset_merge(self.pool, self.size, self.label, ())]
        for k in self.goal.ks:
            for s in choose_subsets("auto", names, k, self.goal.count, seed=self.goal.seed):
                merges.append(subset_merge(self.pool, self.size, self.label, s, seed=self.goal.seed))
        return Round(tuple(merges), "first")
