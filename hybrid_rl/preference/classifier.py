"""Sequence-classification checkpoints of transformers as preference models: text alone, one label.

Where the tokenizer has a chat template, the model reads the conversation with the answer as its last turn. Where it has
none, it reads question and answer as a pair of texts, as encoders are trained to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_rl.errors import ConfigError
from hybrid_rl.preference.inert_text import InertText
from hybrid_rl.preference.judged import Judged

_UNLIMITED = 10**9
"""Tokenizers without a length say 10^30."""


class SequenceClassifier:
    """See `hybrid_rl.preference.judged.PreferenceScorer`. Images of a prompt are not seen.

    Args:
        folder: of the checkpoint; safetensors only, no remote code.

    Raises:
        ConfigError: the folder does not load, or holds no model with one label.
    """

    def __init__(self, folder: str, device: torch.device, dtype: torch.dtype) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_classifier(folder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # use_safetensors: pickled weights can run code when they are loaded.
            model, found = AutoModelForSequenceClassification.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"preference model {folder} cannot be loaded: {reason}") from error
        if found["missing_keys"]:  # transformers would begin them at random
            raise ConfigError(
                f"preference model {folder}: the weights have no tensor {min(found['missing_keys'])}; give the folder "
                f"of a trained reward model"
            )
        self._model = model.to(device).eval()
        self._inert = InertText(self._tokenizer)
        lengths = (
            self._tokenizer.model_max_length,
            getattr(model.config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED,
        )
        self._longest = min(lengths)

    @torch.inference_mode()
    def scores(self, judged: Sequence[Judged], *, max_tokens: int, max_rows: int) -> list[float | None]:
        rows = [self._row(item) for item in judged]
        found: list[float | None] = [None] * len(rows)
        readable = [i for i, row in enumerate(rows) if len(row["input_ids"]) <= self._longest]
        for batch in _batches({i: len(rows[i]["input_ids"]) for i in readable}, max_tokens, max_rows):
            for index, score in zip(batch, self._forward([rows[i] for i in batch]).tolist(), strict=True):
                found[index] = score
        return found

    def _row(self, item: Judged) -> Mapping[str, list[int]]:
        """Ids of one row, and its token types where the model has them."""
        answer = self._inert(item.answer)
        if getattr(self._tokenizer, "chat_template", None):
            turns = [{"role": message.role, "content": message.text} for message in item.prompt.messages]
            turns.append({"role": "assistant", "content": answer})
            row: Any = self._tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)
        else:
            question = "\n\n".join(message.text for message in item.prompt.messages)
            row = self._tokenizer(question, answer)
        return {key: list(row[key]) for key in ("input_ids", "token_type_ids") if key in row}

    def _forward(self, rows: Sequence[Mapping[str, list[int]]]) -> Tensor:
        """Scores of rows, padded on the right [B], float32."""
        device = self._model.device
        config = self._model.config.get_text_config()
        lengths_B = torch.tensor([len(row["input_ids"]) for row in rows])
        own_pad = config.pad_token_id
        if own_pad is None:
            # Decoders find the last token of a row by the padding's id, and take it from their config.
            config.pad_token_id = _absent_id(rows)
        columns = {
            key: _padded([row[key] for row in rows], config.pad_token_id if key == "input_ids" else 0).to(device)
            for key in rows[0]
        }
        attention_BT = torch.arange(int(lengths_B.max()))[None] < lengths_B[:, None]
        try:
            logits_B1: Tensor = self._model(**columns, attention_mask=attention_BT.long().to(device)).logits
        finally:
            config.pad_token_id = own_pad
        return logits_B1[:, 0].float()


def check_classifier(folder: str) -> None:
    """What can be known of a folder without its weights.

    Raises:
        ConfigError: it is no sequence classifier with one label.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"preference model {folder}: its config.json cannot be read: {reason}") from error
    names = config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        what = names[0] if names else "a model of no known kind"
        raise ConfigError(
            f"preference model {folder} holds {what}, which has no head that scores; give a sequence classifier with "
            f"one label, or what `hybrid_rl.preference` has saved"
        )
    if config.num_labels != 1:
        raise ConfigError(
            f"preference model {folder} has {config.num_labels} labels (num_labels in its config.json); a preference "
            f"model has one, the score"
        )
    check_weights(folder, list(Path(folder).glob("*.safetensors")))


def check_weights(folder: str, found: Sequence[Path]) -> None:
    """Raise a ConfigError if a folder has no safetensors among its files."""
    if not found:
        pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in Path(folder).glob(pattern))
        reason = f"{pickled[0]} is pickled, which can run code when it is loaded" if pickled else "there are no weights"
        raise ConfigError(f"preference model {folder}: {reason}; give the weights as safetensors")


def _batches(lengths: Mapping[int, int], max_tokens: int, max_rows: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, at most `max_tokens` padded tokens and `max_rows` rows each."""
    batch: list[int] = []
    for index in sorted(lengths, key=lambda i: -lengths[i]):
        if batch and (len(batch) == max_rows or (len(batch) + 1) * lengths[batch[0]] > max_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _absent_id(rows: Sequence[Mapping[str, list[int]]]) -> int:
    """The smallest id that no row has."""
    present = {i for row in rows for i in row["input_ids"]}
    return next(i for i in range(len(present) + 1) if i not in present)


def _padded(rows: Sequence[list[int]], fill: int) -> Tensor:
    padded_BT = torch.full((len(rows), max(map(len, rows))), fill)
    for b, row in enumerate(rows):
        padded_BT[b, : len(row)] = torch.tensor(row)
    return padded_BT
