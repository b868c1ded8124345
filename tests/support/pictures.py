"""What is wrong with a drawn figure, by the boxes of its texts as they are rendered."""

import itertools
from collections.abc import Iterator

from mergeplan.display.labels import put_in_place

# Pixels by which boxes may meet: a box is a little larger than its letters.
_SLACK = 2.0


def texts_of(figure) -> list[str]:
    """Every text that is shown."""
    return [text.get_text() for text in _texts(figure)]


def faults_of(figure) -> list[str]:
    """Texts over each other, out of the picture, or on the data; the legend over a panel."""
    from matplotlib.text import Text

    put_in_place(figure)
    # Without the line from a name to what it names.
    boxes = [(text, Text.get_window_extent(text)) for text in _texts(figure)]
    found = []
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > _SLACK and high > _SLACK:
            found.append(f"`{one.get_text()}` over `{other.get_text()}`")
    page = figure.bbox
    for text, box in boxes:
        inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
        if not (inside and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1):
            found.append(f"`{text.get_text()}` leaves the picture")
    for legend in [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]:
        box = legend.get_window_extent()
        if any(box.overlaps(axes.get_window_extent()) for axes in figure.axes):
            found.append("a legend lies over a panel")
    if any(axes.get_window_extent().width < 100 for axes in figure.axes if axes.lines):
        found.append("a panel is narrower than 100 pixels")
    return found


def _texts(figure) -> Iterator:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

    # Colour bars too, which are panels within panels.
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            # Ticks beyond the ends of an axis are not drawn.
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                for label in (tick.label1, tick.label2):
                    label.set_visible(label.get_visible() and low <= tick.get_loc() <= high)
    for text in figure.findobj(Text):
        shown = text.get_visible() and text.get_text().strip()
        axes = text.axes
        if shown and (axes is None or (axes.axison and axes.get_visible())):
            yield text
