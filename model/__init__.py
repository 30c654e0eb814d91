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

from .configuration_minicpmv import MiniCPMVConfig, MiniCPMVVisionConfig
from .image_processing import MiniCPMVImageProcessor
from .minicpmv import MiniCPMVForConditionalGeneration, MiniCPMVPreTrainedModel
from .processor import MiniCPMVProcessor
from .slicing import SlicePlan, plan_slices
from .tiny import tiny_minicpmv

__all__ = [
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
AutoConfig.register(MiniCPMVConfig.model_type, MiniCPMVConfig, exist_ok=True)
# The released files map AutoModel and AutoModelForCausalLM to the whole model as well.
for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
    auto_class.register(MiniCPMVConfig, MiniCPMVForConditionalGeneration, exist_ok=True)
AutoImageProcessor.register(MiniCPMVConfig, image_processor_classes={"pil": MiniCPMVImageProcessor}, exist_ok=True)
AutoProcessor.register(MiniCPMVConfig, MiniCPMVProcessor, exist_ok=True)
