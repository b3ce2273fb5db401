"""The page of ``job compare --html``: runs side by side, differing lines marked."""

from job.analysis.comparison import Comparison
from job.report.template import render_template


def render(comparison: Comparison) -> str:
    """Return the page as HTML."""
    return render_template("comparison.html.j2", comparison=comparison)
