"""The jinja2 templates of every page, with one style sheet.

Guarantees one self-contained file: a page makes no request, and text from records never becomes markup.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined

from job.text import clock, counted, dollars, duration, percent


def render_template(name: str, **context: object) -> str:
    """Return a page as HTML; bytes of a path that are no UTF-8 text are spelt out, so that it can be written."""
    environment = Environment(
        loader=PackageLoader("job.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "share": "{:.1%}".format,
        "duration": duration,
        "dollars": dollars,
        "clock": clock,
        "counted": counted,
        "grouped": "{:,}".format,
        "megabytes": lambda num_bytes: f"{num_bytes / 1e6:.1f} MB",
    }
    return environment.get_template(name).render(**context).encode("utf-8", "backslashreplace").decode()
