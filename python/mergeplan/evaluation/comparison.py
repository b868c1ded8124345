"""What a comparison of models found, and how it is written."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mergeplan.display.markdown import code, fenced, heading
from mergeplan.display.summary import COLUMNS, Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import counted, finite, printable
from mergeplan.evaluation.columns import FEWEST, LEVEL, Column
from mergeplan.evaluation.completions import Completion
from mergeplan.evaluation.prompts import Prompt


@dataclass(frozen=True, repr=False)
class Comparison(Summarized):
    """Models by domains, and their completions.

    Attributes:
        models: Their names, the ends of their paths.
        columns: Each domain, the macro mean, and each metric of each task.
        prompts: What was completed.
        completions: Of each model, of each prompt.
        data_hash: See `Texts.sha256`; empty where nothing was scored.
        left_out: Documents of which no token can be scored.
        warnings: What a reader must know.
    """

    models: tuple[str, ...]
    columns: tuple[Column, ...]
    prompts: tuple[Prompt, ...]
    completions: tuple[tuple[Completion, ...], ...]
    data_hash: str
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """The table, what its marks mean, and the completions."""
        parts = []
        if self.columns:
            tables = ["\n".join(align_columns(rows, left=1)) for rows in self._blocks()]
            parts = [*tables, "\n".join(self._notes("*"))]
        for number, prompt in enumerate(self.prompts):
            parts.append(f"prompt of line {prompt.line}")
            parts += [f"{head}\n{_indented(text)}" for head, text in self._texts(number)]
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """The same for a page: bold where the best is told apart."""
        parts = []
        if self.columns:
            head, *body = self._rows(lambda text, bold: f"**{text}**" if bold else text, heading)
            rule = ["---", *["---:"] * (len(head) - 1)]
            table = "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
            parts = [table, "  \n".join(self._notes("bold:", heading))]
        for number, prompt in enumerate(self.prompts):
            parts.append(f"### Prompt of line {prompt.line}")
            texts = self._texts(number, heading)
            parts += [f"{head}\n\n{fenced(text, 'text')}" for head, text in texts]
        return "\n\n".join(parts)

    def csv(self) -> str:
        """The records: a row for each model and column. Completions are not in it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_FIELDS)
        for row in self.records():
            cells = [row[name] for name in _FIELDS]
            writer.writerow([str(c).lower() if isinstance(c, bool) else c for c in cells])
        return text.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """A row for each model and column, with its difference from the best and the interval of
        it; without scores, a row for each model and prompt."""
        if not self.columns:
            return [
                {"model": model, "line": prompt.line, "completion": done.text, "fault": done.fault}
                for model, own in zip(self.models, self.completions, strict=True)
                for prompt, done in zip(self.prompts, own, strict=True)
            ]
        return [
            dict(zip(_FIELDS, finite(self._record(model, column)), strict=True))
            for model in range(len(self.models))
            for column in self.columns
        ]

    def _record(self, model: int, column: Column) -> tuple[Any, ...]:
        one, best = column.values[model], column.best == model
        apart: tuple[float | None, ...] = (None, None, None)
        if column.best is not None and not best:
            apart = (column.differences[model].value, *column.interval(model))
        separated = best and column.separated
        head = (self.models[model], column.name, column.metric, column.better)
        return (*head, one.value, one.se, best, separated, *apart, column.n_groups)

    def data(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "models": list(self.models),
            "scores": self.records() if self.columns else [],
            "level": LEVEL,
            "completions": [
                {"model": model, "line": prompt.line, **vars(done)}
                for number, prompt in enumerate(self.prompts)
                for model, done in self._of(number)
            ],
            "data_hash": self.data_hash or None,
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }

    def _rows(
        self, mark: Callable[[str, bool], str], plain: Callable[[str], str] = printable
    ) -> list[list[str]]:
        """The head, and a row for each model.

        Args:
            mark: Writes a value, of which the second says whether it is marked.
            plain: Writes a name, which may hold anything.
        """
        head = ["model", *(plain(self._head(column)) for column in self.columns)]
        body = [
            [
                plain(name),
                *(
                    mark(_cell(column.values[n].value, column.values[n].se), bold)
                    for column in self.columns
                    for bold in [n == column.best and column.separated]
                ),
            ]
            for n, name in enumerate(self.models)
        ]
        return [head, *body]

    def _head(self, column: Column) -> str:
        alike = column.metric == self.columns[0].metric
        return column.name if alike else f"{column.name} {column.metric}"

    def _blocks(self) -> Iterator[list[list[str]]]:
        """The table, cut into as many as a terminal's width takes."""
        rows = self._rows(lambda text, bold: text + ("*" if bold else " "))
        columns = list(zip(*rows, strict=True))
        widths = [max(map(len, column)) + 2 for column in columns]
        block, width = [0], widths[0]
        for number in range(1, len(columns)):
            if len(block) > 1 and width + widths[number] > COLUMNS:
                yield [list(row) for row in zip(*(columns[n] for n in block), strict=True)]
                block, width = [0], widths[0]
            block.append(number)
            width += widths[number]
        yield [list(row) for row in zip(*(columns[n] for n in block), strict=True)]

    def _notes(self, mark: str, plain: Callable[[str], str] = printable) -> list[str]:
        """What the values and marks mean, and where there can be no mark."""
        ways = [
            f"{way} is better: " + ", ".join(map(plain, dict.fromkeys(c.metric for c in some)))
            for way in ("lower", "higher")
            if (some := [c for c in self.columns if c.better == way])
        ]
        notes = [f"values ± standard errors; {'; '.join(ways)}"]
        if any(column.separated for column in self.columns):
            notes.append(
                f"{mark} better than every other model: the {100 * LEVEL:.0f} % interval of each"
                " paired difference leaves 0 out"
            )
        else:
            notes.append(
                f"no model is told apart from every other by the {100 * LEVEL:.0f} % intervals of"
                " their paired differences"
            )
        few = [self._head(c) for c in self.columns if 0 < c.n_groups < FEWEST]
        if few:
            notes.append(
                f"of fewer than {FEWEST} documents or groups, which tell nothing apart:"
                f" {_listed(few)}"
            )
        unpaired = [self._head(c) for c in self.columns if c.n_groups == 0 or not c.better]
        if unpaired:
            notes.append(f"without items' scores or a direction to compare by: {_listed(unpaired)}")
        return notes

    def _of(self, number: int) -> list[tuple[str, Completion]]:
        """Each model's completion of a prompt."""
        return [(m, own[number]) for m, own in zip(self.models, self.completions, strict=True)]

    def _texts(
        self, number: int, plain: Callable[[str], str] = printable
    ) -> Iterator[tuple[str, str]]:
        """The prompt, once for all models that are given it alike, and the completions."""
        every = self._of(number)
        for prompt in dict.fromkeys(done.prompt for _, done in every if done.prompt):
            given = [plain(name) for name, done in every if done.prompt == prompt]
            alike = len(given) == len(every)
            yield f"given to {'all' if alike else ', '.join(given)}:", _shortened(prompt)
        for name, done in every:
            outcome = plain(done.fault) if done.fault else done.outcome()
            yield f"{plain(name)} ({outcome}):", _shown(done.text)


_FIELDS = (
    *("model", "domain", "metric", "better", "value", "se", "best", "separated"),
    *("difference", "difference_low", "difference_high", "n_groups"),
)


def _cell(value: float, se: float) -> str:
    return f"{value:.4f} ± {se:.4f}" if se == se else f"{value:.4f}"


def _listed(names: list[str]) -> str:
    """The first of some names in backticks, which none of them can end."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(code, names[:10])) + more


# Of a prompt on a terminal or a page: what comes last is what a model goes on from.
_FIRST = _LAST = 1000


def _shortened(text: str) -> str:
    """A prompt, without the middle of a long one, which `--json` has whole."""
    left_out = len(text) - _FIRST - _LAST
    if left_out <= _LAST:
        return _shown(text)
    first, last = _shown(text[:_FIRST]), _shown(text[-_LAST:])
    return f"{first}\n… {counted(left_out, 'characters')} left out: --json has them …\n{last}"


def _shown(text: str) -> str:
    """A model's text, safe to print: its lines as they are, other control characters escaped."""
    return "\n".join(map(printable, text.split("\n")))


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.split("\n"))
