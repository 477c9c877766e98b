"""Plots as files, the same bytes for the same data."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core.records import replacing


@contextlib.contextmanager
def plotted(path: str, columns: int = 1, width: float = 6.0) -> Iterator[list]:
    """`columns` axes of matplotlib side by side, each `width` × 4 inches, saved as `path` (.svg or .png) at the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, 4), squeeze=False)
    yield list(axes[0])
    figure.tight_layout()
    form = Path(path).suffix.removeprefix(".")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=form, metadata={"Date" if form == "svg" else "Software": None})
    pyplot.close(figure)
