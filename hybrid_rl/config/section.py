"""The base of every config section: typed, closed, frozen, documented by the docstrings under its fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


Arguments = dict[str, Any]
"""Keyword arguments for a plug-in; checked against its signature when it is built."""
