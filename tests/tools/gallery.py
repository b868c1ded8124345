"""The pictures of docs/gallery.md, and the page: every picture by the command that the page shows.

    python -m tests.tools.gallery

Run from the repository's root. The pictures are made of data that the repository holds, and kept in
a palette, which takes a quarter of the bytes.
"""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.browser import a_browser

FOLDER = Path("docs") / "gallery"
PAGE = Path("docs") / "gallery.md"
# `select` says by 4 that nothing beats the base.
_FINE = (0, 4)

_DATA, _POOL = "tests/data", "python/mergeplan/demo/pool"
# Name, what it shows, and the command without where it writes to.
PICTURES = (
    (
        "report",
        "The first screen of the page that `report` writes, and that `calibrate` leaves in its run:"
        " what to do, with what it gains and whom it harms, and what more experts bring. 29"
        " averages of eight LoRA experts of SmolLM2-135M-Instruct.",
        f"report {_DATA}/loss_and_cloze_135m.csv -o",
    ),
    (
        "law",
        "A calibration of two methods; `calibrate` writes such a `law.png`. The band is of the"
        " means on this text. The text's error, many times as wide, moves all merges alike and"
        " stands beside the panel. Of k = 2 and 4 some merges were measured: what that leaves"
        " open of their means is the bars of the residuals. The last panel varies λ.",
        f"plot {_DATA}/calibrated_80k.csv -o",
    ),
    (
        "sweep",
        "All 511 subsets of nine experts, each a dot, and a target. Where all are measured a mean"
        " has no band, and the residuals, in millionths, are the law's own.",
        f"plot {_POOL}/measurements.csv --target 1.93 -o",
    ),
    (
        "sizes",
        "Three base sizes, each on a scale of its own, and floor and tail over size.",
        f"plot {_DATA}/real_pools.csv -o",
    ),
    (
        "published",
        "Published means without single merges: their error is not known, and the picture says so.",
        f"plot {_DATA}/measured_llama3b_16_experts.csv -o",
    ),
    (
        "select",
        "That calibration by single subsets: measured ones are filled, predicted ones hollow with"
        " their 90 %, the choice has a star and its experts are bold. A pair is shown beyond what"
        " each of its experts gives to any pair: with that left in, those of the worst expert look"
        " best, since any partner helps it.",
        f"select {_DATA}/calibrated_80k.csv --method task_arithmetic --plot",
    ),
    (
        "front",
        "A complete sweep on two domains, and the subsets that none beats on both, as steps:"
        " nothing lies between two of them.",
        f"select {_DATA}/select_80k.csv --method average --front python,md --plot",
    ),
    (
        "geometry",
        "The experts' deltas, from their weights alone: cosines about zero, what trimming keeps"
        " beside what it would keep of a normal delta, and layers and kinds of modules beside"
        " chance.",
        f"similarity {_POOL}/pool.yml --plot",
    ),
)

_HEAD = """# Gallery

Pictures of `mergeplan report`, `plot`, `select --plot` and `similarity --plot`, of which the last
three also write `.pdf` and `.svg`. `python -m tests.tools.gallery` makes this page and its pictures
anew, each by the command above it, from data that the repository holds.

Filled is measured and hollow is predicted. Blue is better and orange or red is worse. The colours
are Okabe and Ito's, which colour-blind people tell apart, and markers differ beside. Names stand at
what they name; those from files are text, of which no character starts a formula.
"""


def main() -> None:
    """Draw all, and write the page."""
    FOLDER.mkdir(exist_ok=True)
    for name, _, words in PICTURES:
        out = FOLDER / f"{name}{_suffix(words)}"
        command = [sys.executable, "-m", "mergeplan", *words.split(), str(out), "--overwrite"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode not in _FINE:
            sys.exit(run.stderr)
        png = _first_screen(out) if out.suffix == ".html" else out.read_bytes()
        out.with_suffix(".png").write_bytes(_smaller(png))
    PAGE.write_text(page(), "utf-8")


def page() -> str:
    """What docs/gallery.md holds."""
    parts = [_HEAD]
    for name, shows, words in PICTURES:
        command = f"mergeplan {words} {name}{_suffix(words)}"
        text = "\n".join(textwrap.wrap(shows, 100))
        parts.append(f"## {name}\n{text}\n\n    {command}\n\n![{name}](gallery/{name}.png)\n")
    return "\n".join(parts)


def _suffix(words: str) -> str:
    return ".html" if words.startswith("report ") else ".png"


def _first_screen(page: Path) -> bytes:
    """The page's verdict and law, as a browser draws them; the page itself is not kept."""
    with a_browser() as browser:
        drawn = browser.open(page.absolute(), width=1200)
        bottom = drawn.locator("#panel-law").bounding_box()
        drawn.set_viewport_size({"width": 1200, "height": int(bottom["y"] + bottom["height"]) + 8})
        png: bytes = drawn.screenshot()
    page.unlink()
    return png


def _smaller(png: bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    # The octree keeps colours that few pixels have, such as a marker's, where others do not.
    few = image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(file, "png", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
