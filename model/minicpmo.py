"""The omni sisters (MiniCPM-o), which are a MiniCPM-V with ears and a voice; here they see and read only.

Their files differ in names alone, and transformers finds classes by name.
"""

from __future__ import annotations

from typing import ClassVar

from .configuration_minicpmv import MiniCPMVConfig
from .minicpmv import MiniCPMVForConditionalGeneration
from .processor import MiniCPMVProcessor


class MiniCPMOConfig(MiniCPMVConfig):
    """`MiniCPMVConfig` of an omni checkpoint; fields of audio and speech are kept and not read."""

    model_type: ClassVar[str] = "minicpmo"


class MiniCPMOForConditionalGeneration(MiniCPMVForConditionalGeneration):
    """The vision and language parts of an omni checkpoint."""

    config: MiniCPMOConfig
    config_class = MiniCPMOConfig


class MiniCPMOProcessor(MiniCPMVProcessor):
    """`MiniCPMVProcessor` under the name that omni checkpoints use; it takes no audio."""
