"""Files that readers see old or new, never half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(target: Path, content: str | bytes) -> None:
    """Put a text (as UTF-8, halves of characters replaced) or bytes in the place of a file, in one move."""
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=".tmp", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8", errors="replace") if isinstance(content, str) else content)
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
