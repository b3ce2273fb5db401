"""Quantities as people read them, and the time between two records."""

from datetime import datetime

MINUTE, HOUR = 60, 3600


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one recorded time to another; none where a clock was set back in between."""
    return max(0.0, round((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds(), 3))


def duration(seconds: float) -> str:
    """Show a time in its two largest units: ``8.4 s``, ``3 min 20 s``, ``5 h 07 min``."""
    if round(seconds, 1) < MINUTE:
        return f"{seconds:.1f} s"
    if round(seconds) < HOUR:
        return "{} min {:02d} s".format(*divmod(round(seconds), MINUTE))
    return "{:,} h {:02d} min".format(*divmod(round(seconds / MINUTE), MINUTE))


def dollars(usd: float) -> str:
    """Show an amount in dollars, with as many digits as small amounts need: ``$12.40``, ``$0.0031``."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 1 else f"${usd:.4f}"


def percent(share: float) -> str:
    """Show a share of 1: ``68.3 %``."""
    return f"{100 * share:.1f} %"
