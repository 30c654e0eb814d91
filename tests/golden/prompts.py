"""The released tokenizer, chat renderings and processor calls."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from PIL import Image

from golden.golden_set import GoldenSet, Tensors
from golden.ledger import Ledger
from model import MiniCPMVProcessor


def check_prompts(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Everything of processor.json; the tensors of its calls lie in the safetensors file of the same name."""
    content, processor = golden.json(file), golden.released_processor
    tokenizer = processor.tokenizer
    with ledger.at(file, "special_token_ids"):
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in content["special_token_ids"]}
        ledger.same("ids", ids, content["special_token_ids"])
    for i, case in enumerate(content["encodings"]):
        with ledger.at(file, f"encoding {i}"):
            ledger.same("ids", tokenizer.encode(case["text"], add_special_tokens=False), case["ids"])
    for i, case in enumerate(content["chat_template"]):
        with ledger.at(file, f"chat {i} {case['name']}"):
            ledger.same("text", rendered(processor, case), case["text"])
    tensors = golden.tensors(file.replace(".json", ".safetensors"))
    for case in content["cases"]:
        with ledger.at(file, case["name"]):
            if "upstream_error" in case:
                _check_refused(ledger, processor, case)
            else:
                _check_call(ledger, processor, case, tensors)


def rendered(processor: MiniCPMVProcessor, case: dict[str, Any]) -> str:
    """One chat rendering; a thinking switch that is null is left out."""
    options = {} if case["enable_thinking"] is None else {"enable_thinking": case["enable_thinking"]}
    text: str = processor.apply_chat_template(
        case["messages"], add_generation_prompt=case["add_generation_prompt"], tools=case.get("tools"), **options
    )
    return text


def _pictures(case: dict[str, Any]) -> list[list[Image.Image]]:
    return [[Image.new("RGB", tuple(size)) for size in sample] for sample in case["image_sizes_wh"]]


def _check_refused(ledger: Ledger, processor: MiniCPMVProcessor, case: dict[str, Any]) -> None:
    """Released code fails on a prompt cut inside an image, somewhere; here the error says what is wrong."""
    try:
        processor(text=case["texts"], images=_pictures(case), **case["kwargs"])
    except ValueError as error:
        message = str(error)
        ledger.same("the error names the limit", str(case["kwargs"]["max_length"]) in message, True)
        ledger.same("the error names the image", "image" in message, True)
    else:
        ledger.same("refused with an error", False, True)


def _check_call(ledger: Ledger, processor: MiniCPMVProcessor, case: dict[str, Any], tensors: Tensors) -> None:
    name, tokenizer = case["name"], processor.tokenizer
    out = processor(text=case["texts"], images=_pictures(case), padding=True, **case["kwargs"])
    ids, mask = torch.tensor(out["input_ids"]), torch.tensor(out["attention_mask"])
    ledger.same("spans", out["image_bound"], case["image_bound"])
    for b, bounds in enumerate(out["image_bound"]):
        ledger.same(f"spans of sample {b}", bounds, tensors[f"{name}.image_bound.{b}"])
    ledger.same("patch sizes", out["tgt_sizes"], case["tgt_sizes_hw"])
    ledger.same("temporal ids", out["temporal_ids"], case["temporal_ids"])
    ledger.same("ids", ids * mask, tensors[f"{name}.input_ids"])
    # The released mask takes every id 0 for padding, also the real token "!"; ours comes from lengths.
    ledger.same("mask", (mask * ids != 0), tensors[f"{name}.attention_mask"])
    ledger.same("padding", (mask == 0).sum(1), case["pad_lengths"])
    hidden = ((ids == 0) & (mask == 1)).sum(1)
    ledger.same("real tokens of id 0", hidden, case["real_tokens_masked_out_by_upstream"])
    unk = "<unk>" * processor.image_processor.image_feature_size
    texts = [str(tokenizer.decode(row[seen.bool()])) for row, seen in zip(ids, mask, strict=True)]
    ledger.same("text", texts, [text.replace("{U}", unk) for text in case["final_texts"]])
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    ledger.same("text hash", hashes, case["final_text_sha256"])
