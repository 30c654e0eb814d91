"""Names as MLflow takes them. It refuses a whole batch, and with it the run, for one name that it does not like."""

from __future__ import annotations

import posixpath
import re

_LONGEST = 250


def mlflow_name(name: str) -> str:
    """The name itself wherever MLflow takes it; otherwise signs that it refuses become `_`.

    It wants letters, digits and `_-. /`, at most 250 of them, and what would be a plain relative path: `pass@4` is not,
    and a task or a source may be called anything.

    >>> mlflow_name("eval_set/hard/pass@4/long")
    'eval_set/hard/pass_4/long'
    """
    plain = re.sub(r"[^/\w.\- ]", "_", name)
    path = posixpath.normpath(plain)
    if path == plain and path not in (".", "..") and not path.startswith(("/", "../")):
        return plain[:_LONGEST].rstrip("/")
    pieces = ["_" * len(piece) if piece in (".", "..") else piece for piece in plain.split("/") if piece]
    return "/".join(pieces)[:_LONGEST].rstrip("/") or "_"
