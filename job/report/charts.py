"""The report's charts: matplotlib SVG with the page's colours and fonts.

Guarantees that a chart makes no request and repeats no element id. Knows nothing of runs.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from job.recipes.recipe import Band

WIDTH, HEIGHT = 390, 240
"""Size in points; the page stretches a chart."""

MARGINS = (46, 8, 38, 28)
"""Left, right, bottom and top; fixed, so that charts in a column are aligned."""

NAMES = (
    *("ink", "muted", "line", "blue", "green", "amber", "red", "violet", "teal", "orange"),
    *("grey", "card"),
)
COLOURS = {name: f"#0000{number:02x}" for number, name in enumerate(NAMES, start=0xA1)}
"""Placeholders for matplotlib; `_svg` replaces each by the CSS variable of its name."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # ids depend on the content, not on chance
    "font.size": 11,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOURS["line"],
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "figure.facecolor": "none",
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.0,
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one colour of bars, of a chart; lines of one chart differ in style too."""

    label: str
    colour: str
    """One of `NAMES`."""

    values: Sequence[float]
    style: Literal["-", "--", ":", "-."] = "-"


def curve_chart(
    lines: Sequence[Series],
    *,
    first_epoch: int,
    num_epochs: int,
    cuts: Sequence[float],
    band: Band | None = None,
    best_epoch: int | None = None,
    shares: bool = True,
) -> str:
    """Draw series over epochs.

    Args:
        lines: Series of equal length.
        first_epoch: Epoch of the first values; 0 for the start weights.
        num_epochs: End of the axis.
        cuts: Epochs at which attempts were cut off.
        band: The expected band of the first series.
        best_epoch: Epoch to mark on the first series.
        shares: Whether values are shares of 1, shown as percent.
    """
    with _chart() as (figure, axes):
        if band is not None and band.low is not None:
            _draw_band(axes, band)
        for number, cut in enumerate(cuts):
            label = "cut off" if not number else None
            axes.axvline(cut, color=COLOURS["red"], linewidth=1.1, linestyle=(0, (2, 2.5)), label=label)
        for line in lines:
            epochs = range(first_epoch, first_epoch + len(line.values))
            marker = "o" if len(line.values) == 1 else ""
            colour = COLOURS[line.colour]
            axes.plot(epochs, line.values, color=colour, label=line.label, linestyle=line.style, marker=marker)
        if first_epoch == 0 and lines and lines[0].values:
            for line in lines:
                axes.plot(0, line.values[0], "o", markersize=4.5, color=COLOURS[line.colour])
        if best_epoch is not None:
            at = lines[0].values[best_epoch - first_epoch]
            axes.plot(best_epoch, at, "D", markersize=6.5, color=COLOURS[lines[0].colour], label="best")
        axes.set_xlim(first_epoch - 0.02 * num_epochs, num_epochs * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_xlabel("epoch")
        if shares:
            _as_percent(axes)
        else:
            axes.yaxis.set_major_formatter("{x:g}")
        _legend(figure)
    return _svg(figure)


def confidence_chart(confidence: Sequence[float], lines: Sequence[Series], best: float) -> str:
    """Draw series over confidence, and the best operating point."""
    with _chart() as (figure, axes):
        axes.axvline(best, color=COLOURS["muted"], linewidth=1.1, linestyle=(0, (2, 2.5)))
        for line in lines:
            width = 1.2 if line.colour == "muted" else 2.0
            axes.plot(
                *(confidence, line.values),
                color=COLOURS[line.colour],
                label=line.label,
                linestyle=line.style,
                linewidth=width,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence threshold")
        _as_percent(axes)
        _legend(figure)
    return _svg(figure)


def confidence_histogram(counts: Sequence[int], threshold: float) -> str:
    """Draw the objects in each of equal parts of the range of confidences, and the threshold."""
    with _chart() as (figure, axes):
        width = 1 / len(counts)
        lefts = [number * width for number in range(len(counts))]
        axes.bar(lefts, counts, width * 0.92, align="edge", color=COLOURS["blue"], label="objects", linewidth=0)
        axes.axvline(threshold, color=COLOURS["ink"], linewidth=1.1, linestyle=(0, (2, 2.5)), label="threshold")
        axes.set_xlim(0, 1)
        axes.set_xlabel("confidence")
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))  # 20k: the margin has room for five characters
        _legend(figure)
    return _svg(figure)


def sizes_chart(labels: Sequence[str], lines: Sequence[Series]) -> str:
    """Draw recall by object size as bars, one group for each label."""
    with _chart() as (figure, axes):
        width = 0.8 / len(lines)
        for number, line in enumerate(lines):
            positions = [position + (number - (len(lines) - 1) / 2) * width for position in range(len(labels))]
            axes.bar(positions, line.values, width * 0.92, color=COLOURS[line.colour], label=line.label, linewidth=0)
        axes.set_xticks(range(len(labels)), labels)
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1)
        axes.set_xlabel("object size in pixels at the training image size")
        _as_percent(axes)
        _legend(figure)
    return _svg(figure)


def timeline(
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], gaps: Sequence[float], colours: dict[str, str]
) -> str:
    """Draw each attempt as a bar of its phases: its name, and the minutes of each; `colours` are of `NAMES`.

    `gaps` are the minutes from each attempt to the next; a long gap is drawn short.
    """
    total = sum(minutes for _, parts in rows for _, minutes in parts)
    height = MARGINS[2] + MARGINS[3] + len(rows) * min(26.0, max(8.0, 900 / len(rows)))
    with _chart(height) as (figure, axes):
        at = 0.0
        for number, (_, parts) in enumerate(rows):
            for label, minutes in parts:
                axes.barh(
                    *(number, minutes, 0.62, at),
                    color=COLOURS[colours[label]],
                    edgecolor=COLOURS["card"],
                    linewidth=0.6,
                )
                at += minutes
            if number < len(gaps):
                at += min(gaps[number], total / 12)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.set_xlim(0, at * 1.01 or 1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("minutes")
    return _svg(figure)


def _draw_band(axes: Axes, band: Band) -> None:
    low = band.low or 0.0
    if band.high is not None and band.high > low:
        axes.axhspan(low, band.high, color=COLOURS["green"], alpha=0.16, linewidth=0, label="expected")
    else:
        axes.axhline(low, color=COLOURS["green"], linewidth=1.2, label="expected")


def _as_percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _legend(figure: Figure) -> None:
    figure.legend(loc="upper left", bbox_to_anchor=(0, 1), ncols=5, borderaxespad=0.2)


@contextmanager
def _chart(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        FigureCanvasSVG(figure)
        left, right, bottom, top = MARGINS
        axes = figure.add_axes((left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + top) / height))
        axes.tick_params(length=3)
        yield figure, axes


def _svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element."""
    written = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = written.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r'\1role="img"', text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # ids repeat from chart to chart
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'="[^"]*"', lambda attribute: re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0]), text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()
