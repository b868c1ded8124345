"""The texts that come with the demo: excerpts of this repository's own files, in four kinds.

    python -m tests.tools.demo_texts

Run from the repository's root. The demo's models were trained on other packages' files, and the
wheel may carry these under its own licence. Whoever renews them renews the pages' outputs too.
"""

import json
from pathlib import Path

FOLDER = Path("python/mergeplan/demo/texts")
# Enough for two halves of twelve and more; short, since a reader waits for them.
DOCUMENTS, CHARACTERS = 40, 120
KINDS = {
    "js": "python/mergeplan/reporting/web/**/*[!n].js",  # not d3.min.js, which is not ours
    "json": "docs/schemas/*.json",
    "md": "docs/*.md",
    "python": "python/mergeplan/*/*.py",
}


def documents(pattern: str) -> list[str]:
    """Excerpts of the files in turn, each from another place, beginning with a line."""
    files = sorted(path for path in Path().glob(pattern) if path.stat().st_size > 1000)
    found = []
    for n in range(DOCUMENTS):
        text = files[n * len(files) // DOCUMENTS].read_text("utf-8")
        start = text.find("\n", (n * 7 % DOCUMENTS) * (len(text) - 400) // DOCUMENTS) + 1
        found.append(text[start : start + CHARACTERS])
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for kind, pattern in KINDS.items():
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in documents(pattern)]
        (FOLDER / f"{kind}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
