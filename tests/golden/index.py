"""The index itself: config, tokenizer, weights, and that every tensor and every file was looked at."""

from __future__ import annotations

import json
from typing import Any

from golden.golden_set import GoldenSet
from golden.ledger import Ledger
from model.prompt import PLACEHOLDER_TOKEN


def check_config(golden: GoldenSet, ledger: Ledger) -> None:
    """The index describes the config and the tokenizer beside it, and the model agrees."""
    with ledger.at("config.json", "config"):
        config = golden.json("config.json")
        recorded = golden.index["config"]
        ledger.same("fields", {key: config.get(key) for key in recorded}, recorded)
        ledger.same("resampler heads", golden.model.config.resampler_heads, golden.index["resampler_heads"])
    with ledger.at(golden.tiny_tokenizer_path.name, "special tokens"):
        expected = golden.index["tiny_tokenizer_special_ids"]
        ids = {token: golden.tiny_processor.tokenizer.convert_tokens_to_ids(token) for token in expected}
        ledger.same("ids", ids, expected)
    with ledger.at(golden.tiny_tokenizer_path.name, "vocabulary"):
        content = json.loads(golden.tiny_tokenizer_path.read_text())
        released = json.loads((golden.released_path / "vocab.json").read_text())
        vocab, added = content["model"]["vocab"], content["added_tokens"]
        # The bytes come first in the released vocabulary, under the same ids; the placeholder follows.
        bytes_of = {text: number for text, number in released.items() if number < 256}
        ledger.same("bytes", vocab, bytes_of | {PLACEHOLDER_TOKEN: 256})
        ledger.same("ids of added tokens", [token["id"] for token in added], list(range(256, 256 + len(added))))
        decoder = json.loads((golden.released_path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        names = {token["content"] for token in added}
        expected = [token for token in decoder.values() if token["content"] in names]
        ledger.same("added tokens", [{k: v for k, v in token.items() if k != "id"} for token in added], expected)


def check_weights(golden: GoldenSet, ledger: Ledger, file: str) -> None:
    """Number of parameters and tensors; the values are judged by what the model computes."""
    with ledger.at(file, "weights"):
        entry, state = golden.index["files"][file], golden.model.state_dict()
        ledger.same("tensors", len(state), entry["n_tensors"])
        ledger.same("parameters", sum(p.numel() for p in golden.model.parameters()), entry["n_params"])


def check_shapes(golden: GoldenSet, ledger: Ledger) -> None:
    """Types and shapes of all tensors as the index lists them, and no tensor that nobody compared."""
    listed: dict[str, dict[str, Any]] = golden.index.get("tensor_shapes", {})
    for file, tensors in golden.opened().items():
        if file in listed:
            with ledger.at(file, "shapes"):
                ledger.same("types and shapes", tensors.layout, listed[file])
        for name in sorted(tensors.unused):
            ledger.skip(file, name, "no check looks at this tensor")
