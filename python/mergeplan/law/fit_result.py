"""All fits of a file, and how they read."""

from dataclasses import dataclass
from typing import Any, NoReturn

from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import format_count
from mergeplan.errors import InputError
from mergeplan.law.curve import Fit, Prediction, TargetK, coefficients_text
from mergeplan.law.joint import JointFit
from mergeplan.law.joint_draws import SIZE_EFFECT
from mergeplan.law.posterior import CONFIDENCE
from mergeplan.law.series import name_of
from mergeplan.system.ranges import check_number


@dataclass(frozen=True, repr=False)
class FitResult(Summarized):
    """All fits of a file.

    Attributes:
        joints: One for each method and options measured at three sizes or more.
        skipped: Which series had too few points, and why.
    """

    fits: tuple[Fit, ...]
    data_sha256: str
    joints: tuple[JointFit, ...] = ()
    skipped: tuple[str, ...] = ()

    def choose(
        self, n: float | None = None, method: str | None = None, options: str | None = None
    ) -> Fit:
        """The fit of one base size, method and its options.

        Args:
            n: Parameters of the base.
            options: As JSON, where a method was measured with several.

        Returns:
            The one fit that all of them leave.

        Raises:
            InputError: There is none, or more than one.
        """
        found = self.fits
        if n is not None:
            found = tuple(fit for fit in found if fit.series.n_params == n)
        if method is not None:
            found = tuple(fit for fit in found if fit.series.method == method)
        if options is not None:
            found = tuple(fit for fit in found if fit.series.options == options)
        if len(found) != 1:
            have = "; ".join(name_of(fit.series) for fit in found or self.fits)
            raise InputError(
                f"{len(found)} fits match, expected one of: {have}", self._how_to_name(found)
            )
        return found[0]

    def _how_to_name(self, found: tuple[Fit, ...]) -> str:
        """What would single one out, with a value that does."""
        fits = found or self.fits
        for name in ("method", "n_params", "options"):
            values = list(dict.fromkeys(getattr(fit.series, name) for fit in fits))
            if len(values) > 1:
                key = "n" if name == "n_params" else name
                return f"name one: `{key}={values[0]!r}`"
        return f"there is method `{fits[0].series.method}`"

    def predict(
        self,
        k: float,
        n: float | None = None,
        method: str | None = None,
        confidence: float = CONFIDENCE,
        *,
        options: str | None = None,
    ) -> Prediction:
        """Expected loss at k for a base of n parameters; by the joint law where n was not measured.

        Args:
            k: Experts, 1 or more; need not be whole, nor measured.
            n, method, options: As for `choose`.
            confidence: Of the interval, between 0 and 1.

        Returns:
            The mean over this pool's subsets of k on this text, in nats per token or on the scale
            of the metric, with its interval.

        Raises:
            InputError: No fit, or more than one, matches, or a number is out of range.
        """
        check_number(k, "k", 1, 1e9)
        check_number(confidence, "confidence", 0.01, 0.999)
        measured = {fit.series.n_params for fit in self.fits}
        joints = [j for j in self.joints if method is None or j.method == method]
        joints = [j for j in joints if options is None or j.options == options]
        if n is None or n in measured or measured == {None}:
            return self.choose(n, method, options).predict(k, confidence)
        check_number(n, "n", 1, 1e18)
        if not joints:
            self.refuse_unmeasured(n)
        if len(joints) > 1:
            names = ", ".join(dict.fromkeys(f"`{j.method}` {j.options}" for j in joints))
            raise InputError(
                f"several methods were measured over sizes: {names}",
                "name one as `method`, and its `options`",
            )
        joint = joints[0]
        loss, low, high = joint.predict(k, n, confidence)
        sizes = [size for size in measured if size is not None]
        outside = not min(sizes) <= n <= max(sizes) or k > joint.largest_k
        scales = joint.at_scales(k, n, confidence)
        return Prediction(loss, low, high, confidence, outside, scales)

    def refuse_unmeasured(self, n: float) -> NoReturn:
        """Say why nothing is known of a base size that was not measured.

        Args:
            n: Its parameters.

        Raises:
            InputError: Always.
        """
        why = [text for text in self.skipped if "law over sizes" in text]
        hint = "give every size the same experts, under the same names"
        if not why:
            found = ", ".join(dict.fromkeys(name_of(fit.series) for fit in self.fits))
            why = [f"it needs three sizes of one method, found {found}"]
            hint = "measure the same experts at three base sizes or more"
        elif self.fits[0].law.can_rise:
            hint = "fit the form `hyperbolic`"
        raise InputError(
            f"a base of {format_count(n)} was not measured, and no law over sizes speaks of it:"
            f" {'; '.join(why)}",
            hint,
        )

    def solve(
        self,
        target_loss: float,
        n: float | None = None,
        method: str | None = None,
        confidence: float = CONFIDENCE,
        *,
        options: str | None = None,
    ) -> TargetK:
        """The number of experts for a target loss at one measured base size.

        Args:
            target_loss: In nats per token, or on the scale of the metric.
            n, method, options: As for `choose`.

        Returns:
            The smallest k whose mean on this text reaches it, with its interval.

        Raises:
            InputError: No fit, or more than one, matches, or a number is out of range.
        """
        lowest = -1e9 if self.fits[0].series.scale.metric else 1e-9
        check_number(target_loss, "target_loss", lowest, 1e9)
        check_number(confidence, "confidence", 0.01, 0.999)
        return self.choose(n, method, options).solve(target_loss, confidence)

    def records(self) -> list[dict[str, Any]]:
        """A row for each fit: the forecast's coefficients."""
        return [
            {
                **fit.series.names(),
                "floor": fit.series.scale.own(fit.forecast.floor),
                "tail": fit.forecast.tail,
                "offset": fit.forecast.offset,
                "r2": fit.r2,
            }
            for fit in self.fits
        ]

    def summary(self, *, warnings: bool = True) -> str:
        """One line for each series with what is known of its fit, one for each law over sizes.

        Args:
            warnings: Also what speaks against a fit.
        """
        scale = self.fits[0].series.scale
        measure = "metric" if scale.metric else "domain"
        rows = [[scale.limit, "tail", "offset", "R²", measure, "method and size"]]
        for fit in self.fits:
            law = fit.law
            numbers = (
                f"{scale.own(law.floor):.5f}",
                f"{law.tail:.5f}",
                f"{law.offset:.4g}",
                f"{fit.r2:.5f}",
            )
            rows.append([*numbers, fit.series.measured or "-", name_of(fit.series)])
        head, *table = align_columns(rows, left=0, words=2)
        lines = [head]
        for fit, line in zip(self.fits, table, strict=True):
            law, series = fit.law, fit.series
            lines.append(line)
            if remark := law.remark():
                lines.append(f"         {remark}")
            if fit.forecast != law:
                said = coefficients_text(fit.forecast, scale, 5)
                lines.append(f"         forecast, whose offset may be negative: {said}")
            ranges = fit.intervals()
            if ranges:
                ranges = {scale.limit: scale.interval(*ranges.pop("floor")), **ranges}
                cells = [f"{low:.4g} to {high:.4g}" for low, high in ranges.values()]
                names = ", ".join(f"{n} {c}" for n, c in zip(ranges, cells, strict=True))
                lines.append(f"         forecast's 90 % on this text: {names}")
            if fit.voice:
                lines.append(f"         {fit.voice}")
            if fit.spread is not None:
                one = fit.spread.deviation(1)
                lines.append(f"         single subsets: standard deviation {one:.4f} at k = 1, as")
                lines[-1] += f" the root of 1/k - 1/{series.pool_size} from there on"
            if fit.tails:
                errors = ", ".join(f"{score.name} {score.left_out:.2g}" for score in fit.tails)
                lines.append(f"         error at a k that is left out: {errors}")
        for joint in self.joints:
            lines += ["", *_over_sizes(joint)]
        if warnings:
            lines += [f"warning: {name_of(f.series)}: {w}" for f in self.fits for w in f.warnings]
            lines += [f"warning: {text}" for text in self.skipped]
        return "\n".join(lines)


def _over_sizes(joint: JointFit) -> list[str]:
    law, off = joint.law, _percent(*joint.size_effect())
    formula = joint.series[0].scale.formula("L(N,k)")
    lines = [
        f"{joint.method} over {len(joint.series)} sizes, N in billions (R² {joint.r2:.4f}):",
        f"  {formula} = {law.l_star:.4f} + {law.b_size:.4f}·N^-{law.beta:.3f}"
        f" + {law.a_0:.4f}·N^-{law.gamma:.3f}/(k + {law.offset:.3g})",
        f"  each size is off as a whole by {off} of its loss (90 % on this text; the prior's median"
        f" is {_percent(SIZE_EFFECT)})",
    ]
    if joint.unchecked:
        lines.append("  three sizes, which L*, B and β fit exactly: it is unchecked")
    return lines


def _percent(*shares: float) -> str:
    """
    >>> _percent(0.0025, 0.031)
    '0.25 to 3.1 %'
    """
    return " to ".join(f"{100 * share:.2g}" for share in shares) + " %"
