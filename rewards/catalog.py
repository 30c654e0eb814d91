"""Which built-in reward stands behind the name of a metric.

`METRIC:response` is the one for whole responses, where it is another than the one for bare answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CATALOG: Mapping[str, str] = MappingProxyType(
    {
        "math": "rewards.math_answer:math_value",
        "math:response": "rewards.math_answer:math_final",
        "math_final": "rewards.math_answer:math_final",
        "math_boxed": "rewards.math_answer:math_boxed",
        "mcq": "rewards.multiple_choice:multiple_choice",
        "text": "rewards.text_match:text_match",
        "text_sloppy": "rewards.text_exact:text_sloppy",
        "exact": "rewards.text_exact:exact",
        "exact_ws": "rewards.text_exact:exact_ws",
        "alnum": "rewards.text_exact:alnum",
        "f1": "rewards.token_f1:token_f1",
        "bool": "rewards.truth:truth",
        "count": "rewards.counting:count",
        "numeric": "rewards.numeric:numeric",
        "decimal_exact": "rewards.decimal_exact:decimal_exact",
        "unit_name": "rewards.unit_name:unit_name",
        "levenshtein": "rewards.edit_distance:levenshtein",
        "indel": "rewards.edit_distance:indel",
        "edit_similarity": "rewards.edit_distance:edit_similarity",
        "cer": "rewards.edit_distance:cer",
        "wer": "rewards.edit_distance:wer",
        "anls": "rewards.document_qa:anls",
        "anls_star": "rewards.document_qa:anls_star",
        "ocrbench": "rewards.ocrbench:ocrbench",
        "ocrbench_hme": "rewards.ocrbench:ocrbench_hme",
        "ocrbench_cn": "rewards.ocrbench:ocrbench_cn",
        "ocrbench_v2_vqa": "rewards.ocrbench:ocrbench_v2_vqa",
        "ocr_match": "rewards.ocr_match:ocr_match",
        "ocr_exact": "rewards.ocr_match:ocr_exact",
        "relaxed": "rewards.chart:relaxed",
        "relaxed_clean": "rewards.chart:relaxed_clean",
        "vqa_accuracy": "rewards.visual_qa:vqa_accuracy",
        "iou": "rewards.grounding:iou",
        "giou": "rewards.grounding:giou",
        "mean_iou_over_gold": "rewards.grounding:mean_iou_over_gold",
        "teds": "rewards.table_html:teds",
        "json_exact": "rewards.json_answer:json_exact",
        "json_leaves": "rewards.json_answer:json_leaves",
        "constraints": "rewards.instructions:constraints",
        "format_think": "rewards.response_format:format_think",
        "format_strict_think": "rewards.response_format:format_strict_think",
        "format_think_answer": "rewards.response_format:format_think_answer",
        "format_tag_count": "rewards.response_format:format_tag_count",
        "format_nemo": "rewards.response_format:format_nemo",
        "ngram_repetition": "rewards.ngram_repetition:ngram_repetition",
        "soft_overlong": "rewards.length_shaping:soft_overlong",
        "cosine_scaled": "rewards.length_shaping:cosine_scaled",
        "language_consistency": "rewards.language_consistency:language_consistency",
    }
)
"""Targets by metric name, as the labelled cases and `rewards check` name them."""
