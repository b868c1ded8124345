"""All fits of a file, and how they read."""

from dataclasses import dataclass

from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.errors import InputError
from mergeplan.law.curve import CONFIDENCE, Fit, Prediction, TargetK
from mergeplan.law.joint import JointFit
from mergeplan.law.series import name_of


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

    def choose(self, n: float | None = None, method: str | None = None) -> Fit:
        """The fit of one base size (parameters) and method.

        Raises:
            InputError: There is none, or more than one.
        """
        found = [
            fit
            for fit in self.fits
            if (n is None or fit.series.n_params == n)
            and (method is None or fit.series.method == method)
        ]
        if len(found) != 1:
            have = "; ".join(name_of(fit.series) for fit in self.fits)
            raise InputError(
                f"{len(found)} fits match, expected one of: {have}",
                "name one: `choose(n=…, method=…)`, with n a number of parameters",
            )
        return found[0]

    def predict(
        self,
        k: float,
        n: float | None = None,
        method: str | None = None,
        confidence: float = CONFIDENCE,
    ) -> Prediction:
        """Expected loss at k for a base of n parameters; by the joint law where n was not measured.

        Raises:
            InputError: No fit, or more than one, matches.
        """
        measured = {fit.series.n_params for fit in self.fits}
        joints = [j for j in self.joints if method is None or j.method == method]
        if n is None or n in measured or not joints:
            return self.choose(n, method).predict(k, confidence)
        if len(joints) > 1:
            raise InputError("several methods match", "name one as `method`")
        loss, low, high = joints[0].predict(k, n, confidence)
        sizes = [size for size in measured if size is not None]
        outside = not min(sizes) <= n <= max(sizes)
        return Prediction(loss, low, high, confidence, outside or k > joints[0].largest_k)

    def solve(
        self,
        target_loss: float,
        n: float | None = None,
        method: str | None = None,
        confidence: float = CONFIDENCE,
    ) -> TargetK:
        """The number of experts for a target loss at one measured base size.

        Raises:
            InputError: No fit, or more than one, matches.
        """
        return self.choose(n, method).solve(target_loss, confidence)

    def summary(self) -> str:
        """One line for each series with what is known of its fit, and one for each law over
        sizes."""
        rows = [["floor", "tail", "offset", "R²", "domain", "method and size"]]
        for fit in self.fits:
            law = fit.law
            numbers = f"{law.floor:.5f}", f"{law.tail:.5f}", f"{law.offset:.4g}", f"{fit.r2:.5f}"
            rows.append([*numbers, fit.series.domain or "-", name_of(fit.series)])
        head, *table = align_columns(rows, left=0, words=2)
        lines = [head]
        for fit, line in zip(self.fits, table, strict=True):
            law, series = fit.law, fit.series
            lines.append(line)
            if remark := law.remark():
                lines.append(f"         {remark}")
            ranges = fit.intervals()
            if ranges:
                cells = [f"{low:.4g} to {high:.4g}" for low, high in ranges.values()]
                names = ", ".join(f"{n} {c}" for n, c in zip(ranges, cells, strict=True))
                lines.append(f"         90 %: {names}")
            if fit.spread is not None:
                one = fit.spread.deviation(1)
                lines.append(f"         single subsets: standard deviation {one:.4f} at k = 1, as")
                lines[-1] += f" the root of 1/k - 1/{series.pool_size} from there on"
            if fit.tails:
                errors = ", ".join(f"{score.name} {score.left_out:.2g}" for score in fit.tails)
                lines.append(f"         error at a k that is left out: {errors}")
        for joint in self.joints:
            whole = joint.law
            lines += [
                "",
                f"{joint.method} over {len(joint.series)} sizes, N in billions"
                f" (R² {joint.r2:.4f}):",
                f"  L(N,k) = {whole.l_star:.4f} + {whole.b_size:.4f}·N^-{whole.beta:.3f}"
                f" + {whole.a_0:.4f}·N^-{whole.gamma:.3f}/(k + {whole.offset:.3g})",
            ]
        return "\n".join(lines)
