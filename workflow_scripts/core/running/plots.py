"""Plots as files. Equal data gives equal bytes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core.files import replacing


@contextlib.contextmanager
def figure(path: str | Path, columns: int = 1, width: float = 6.0) -> Iterator[list]:
    """Yield `columns` matplotlib axes side by side, each `width` × 4 inches; save them as `path` (.svg or .png)."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "roundhouse"
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, columns, figsize=(width * columns, 4), squeeze=False)
    yield list(axes[0])

    drawing.tight_layout()
    form = Path(path).suffix.removeprefix(".")
    with replacing(path) as temporary:
        drawing.savefig(temporary, format=form, metadata={"Date" if form == "svg" else "Software": None})
    pyplot.close(drawing)
