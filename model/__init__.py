"""MiniCPM-V 4.5 as a transformers model; importing this package makes the Auto classes know it."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

# The one that `transformers` itself exports insists on torchvision, which nothing here needs.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .checkpoint import CheckpointError
from .configuration_minicpmv import MiniCPMVConfig, MiniCPMVVisionConfig
from .image_processing import MiniCPMVImageProcessor
from .minicpmo import MiniCPMOConfig, MiniCPMOForConditionalGeneration, MiniCPMOProcessor
from .minicpmv import MiniCPMVForConditionalGeneration, MiniCPMVPreTrainedModel
from .processor import MiniCPMVProcessor
from .slicing import SlicePlan, plan_slices
from .tiny import tiny_minicpmv

__all__ = [
    "CheckpointError",
    "MiniCPMOConfig",
    "MiniCPMOForConditionalGeneration",
    "MiniCPMOProcessor",
    "MiniCPMVConfig",
    "MiniCPMVForConditionalGeneration",
    "MiniCPMVImageProcessor",
    "MiniCPMVPreTrainedModel",
    "MiniCPMVProcessor",
    "MiniCPMVVisionConfig",
    "SlicePlan",
    "plan_slices",
    "tiny_minicpmv",
]

# exist_ok: a reloaded module (notebooks, some test runners) registers again.
for config_class, model_class, processor_class in (
    (MiniCPMVConfig, MiniCPMVForConditionalGeneration, MiniCPMVProcessor),
    (MiniCPMOConfig, MiniCPMOForConditionalGeneration, MiniCPMOProcessor),
):
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    # The released files map AutoModel and AutoModelForCausalLM to the whole model as well.
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        auto_class.register(config_class, model_class, exist_ok=True)
    AutoImageProcessor.register(config_class, image_processor_classes={"pil": MiniCPMVImageProcessor}, exist_ok=True)
    AutoProcessor.register(config_class, processor_class, exist_ok=True)
