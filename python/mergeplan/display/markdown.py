"""Text of others in Markdown, where it must stay text."""

import re

from mergeplan.display.text import cut

_LONGEST = 200
# What could end a code span, or the cell of a table that holds it.
_ENDS = {ord(letter): rf"\x{ord(letter):02x}" for letter in "`|"}
_PLAIN = re.compile(r"[^\W_]+(?:[ ._-][^\W_]+)*")


def code(text: object) -> str:
    """A code span that any text may stand in, also in a table; it is cut where it is long.

    >>> code("a|<b>`x")
    '`a\\\\x7c<b>\\\\x60x`'
    """
    return f"`{cut(str(text)[: _LONGEST + 1].translate(_ENDS), _LONGEST) or ' '}`"


def heading(text: str) -> str:
    """A name as it stands in a heading: as it is, or as code where that could be markup.

    >>> heading("été-merge 1.2"), heading("out <b>")
    ('été-merge 1.2', '`out <b>`')
    """
    return text if len(text) <= _LONGEST and _PLAIN.fullmatch(text) else code(text)


def fenced(text: str, language: str) -> str:
    """A block that the text cannot end.

    >>> fenced("a: 1", "yaml")
    '```yaml\\na: 1\\n```'
    """
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
