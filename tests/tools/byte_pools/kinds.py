"""Kinds of text, by the names of the files that hold them; paths are Debian's and PyPI's."""

# In this order a pool of M experts has the first M; those with a second expert come last.
KINDS: dict[str, tuple[str, ...]] = {
    "python": ("*.py",),
    "cheader": ("*.h", "*.hpp"),
    "rust": ("*.rs",),
    "js": ("*.js", "*.mjs"),
    "perl": ("*.pl", "*.pm"),
    "shell": ("*.sh", "*.postinst", "*.prerm"),
    "html": ("*.html",),
    "css": ("*.css",),
    "json": ("*.json",),
    "xml": ("*.xml", "*.svg"),
    "md": ("*.md", "*/README.md.gz"),
    "changes": ("*/changelog.Debian.gz",),
    "manual": ("*/man/man[158]/*.gz",),
    "de": ("*/locale/de/LC_MESSAGES/*.mo",),
    "fr": ("*/locale/fr/LC_MESSAGES/*.mo",),
    "ru": ("*/locale/ru/LC_MESSAGES/*.mo",),
    "pl": ("*/locale/pl/LC_MESSAGES/*.mo",),
    "ja": ("*/locale/ja/LC_MESSAGES/*.mo",),
    "c": ("*.c", "*.cc", "*.cpp"),
    "toml": ("*.toml",),
    "rst": ("*.rst",),
    "licence": ("*/doc/*/copyright", "*/LICENSE*"),
    "tr": ("*/locale/tr/LC_MESSAGES/*.mo",),
    "zh": ("*/locale/zh_CN/LC_MESSAGES/*.mo",),
}
# A second expert of these learns from other packages than the first; its name ends in 2.
SECOND = ("python", "cheader", "rust", "manual", "fr", "changes")


def experts_of(count: int) -> dict[str, str]:
    """The kind of each of so many experts, by name.

    >>> list(experts_of(26))[-3:]
    ['zh', 'python2', 'cheader2']
    """
    every = {kind: kind for kind in KINDS} | {f"{kind}2": kind for kind in SECOND}
    if not 2 <= count <= len(every):
        raise SystemExit(f"error: a pool has 2 to {len(every)} experts, not {count}")
    return dict(list(every.items())[:count])
