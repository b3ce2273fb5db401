"""W&B credentials of this machine, by environment and ``~/.netrc``; the server is not asked.

Does not import the library, which takes seconds.
"""

import contextlib
import netrc
import os
from urllib.parse import urlsplit

SERVER = "https://api.wandb.ai"

MODE, DISABLED = "WANDB_MODE", "disabled"


def is_disabled() -> bool:
    """Return whether the user has turned tracking off."""
    return os.environ.get(MODE) == DISABLED


def why_offline() -> str:
    """Return the reason for having no key, or an empty text; ``wandb login`` writes keys to the netrc."""
    mode = os.environ.get(MODE, "online")
    if mode != "online":
        return f"{MODE} is {mode}"
    if os.environ.get("WANDB_API_KEY"):
        return ""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None:
            return ""
    return "there is no key"
