"""A policy's backbone as a preference model: a scalar head in the place of the vocabulary head.

The score of an answer is a linear function of the last hidden state at the last token of prompt and answer. Everything
else is the policy as it is: its processor and chat template, its images, its way of being called. The model reads the
answer in a mode without thought, so that what was thought before it cannot count.

Legend: B = rows, L = longest response, D = width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hybrid_rl.config.model import ModelConfig
from hybrid_rl.config.modes import KindConfig, ModesConfig
from hybrid_rl.config.section import Section
from hybrid_rl.errors import ConfigError
from hybrid_rl.policy import Policy
from hybrid_rl.preference.inert_text import InertText
from hybrid_rl.preference.judged import Judged, prompt_key
from hybrid_rl.records import stable_seed
from hybrid_rl.templates import PromptInputs
from hybrid_rl.updates.padded import micro_batches
from hybrid_rl.updates.rows import Row

ANSWER = "answer"
"""Name of the one mode of a preference model's policy."""
HEAD_PART = "head"
"""The scalar head among the parts of a model, for `learning_rate_scale`."""


class ScalarHead(nn.Module):
    """A hidden state [..., D] to a score [..., 1], in float32 whatever the backbone computes in.

    bfloat16 has three digits, in which close answers would tie. There is no bias: it cancels in every comparison.
    """

    def __init__(self, width: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(stable_seed("scalar head", seed))
        # Variance 1 / (D + 1): Stiennon et al., arXiv 2009.01325, appendix B.1.
        self.weight = nn.Parameter(torch.randn(1, width, generator=generator) * (width + 1) ** -0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ self.weight.float().T


class Rendering(Section):
    """How a prompt is rendered for a preference model: as in a mode without thought."""

    template_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the chat template, such as `enable_thinking: false`."""
    prefill: str = ""
    """Text behind the generation prompt."""

    @property
    def modes(self) -> ModesConfig:
        """The modes of a preference model's policy."""
        kind = KindConfig(template_args=self.template_args, prefill=self.prefill, max_new_tokens=1)
        return ModesConfig(kinds={ANSWER: kind})


class PreferenceModel:
    """See `hybrid_rl.preference.judged.PreferenceScorer`.

    Args:
        policy: its model gets the head in place, and can sample no more.
        config: that the policy was loaded with.
        rendering: whose modes the policy was loaded with.
        head: None for a new one.
        seed: of a new head.

    Raises:
        ConfigError: the mode asks for a thought, or the model has no vocabulary head to replace.
    """

    def __init__(
        self,
        policy: Policy,
        config: ModelConfig,
        rendering: Rendering,
        head: ScalarHead | None = None,
        *,
        seed: int = 0,
    ) -> None:
        if policy.format.thought(ANSWER) == "opened":
            raise ConfigError(
                "a preference model reads answers without a thought; set template_args or prefill so that the prompt "
                "leaves no think block open"
            )
        self._vocabulary_head = policy.model.get_output_embeddings()
        if self._vocabulary_head is None:
            raise ConfigError(f"{type(policy.model).__name__} has no vocabulary head that a scalar head could replace")
        width = self._vocabulary_head.weight.shape[1]
        if head is not None and head.weight.shape[1] != width:
            raise ConfigError(f"the scalar head reads {head.weight.shape[1]} features, and the backbone has {width}")
        self.policy, self.config, self.rendering = policy, config, rendering
        self.head = (head or ScalarHead(width, seed=seed)).to(policy.device)
        policy.model.set_output_embeddings(self.head)
        if self._vocabulary_head.weight is not policy.model.get_input_embeddings().weight:
            self._vocabulary_head.to("cpu")  # only needed to save; a tied one is the table of embeddings
        (self._head_name,) = (name for name, p in policy.model.named_parameters() if p is self.head.weight)
        tokenizer = getattr(policy.processor, "tokenizer", policy.processor)
        control = tokenizer.convert_ids_to_tokens([*policy.format.stop_ids(ANSWER), *policy.forbidden_ids])
        self._inert = InertText(tokenizer, (*config.thought_tags, *control))

    @property
    def parts(self) -> dict[str, list[str]]:
        """The parts of the policy, and `HEAD_PART`."""
        return {**self.config.parts, HEAD_PART: [self._head_name]}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The head, and the adapter or all weights."""
        return {**self.policy.trained_parameters(), self._head_name: self.head.weight}

    @contextlib.contextmanager
    def with_vocabulary_head(self) -> Iterator[None]:
        """The model as it was before, inside the block: what is saved then loads as any other checkpoint."""
        self.policy.model.set_output_embeddings(self._vocabulary_head)
        try:
            yield
        finally:
            self.policy.model.set_output_embeddings(self.head)

    def rows(self, judged: Sequence[Judged]) -> list[Row]:
        """Prompts and answers as ids, each answer with its stop token. Equal prompts share their inputs."""
        inputs: dict[object, PromptInputs] = {}
        rows = []
        for item in judged:
            key = prompt_key(item.prompt)
            if key not in inputs:
                inputs[key] = self.policy.format.inputs(item.prompt, ANSWER)
            response = self.policy.format.response_ids(item.prompt, ANSWER, "", self._inert(item.answer))
            rows.append(Row(inputs[key], response))
        return rows

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, padded together [B], float32."""
        prompts = {id(row.inputs): row.inputs for row in rows}
        place = {key: u for u, key in enumerate(prompts)}
        # Logits predict the token they stand before: one token more is asked for, and never read by the others.
        responses = [(*row.response, row.response[-1]) for row in rows]
        scores_BL1 = self.policy.response_logits(
            list(prompts.values()), [place[id(row.inputs)] for row in rows], responses
        )
        last_B = torch.tensor([len(row.response) for row in rows], device=scores_BL1.device)
        return scores_BL1[torch.arange(len(rows), device=last_B.device), last_B, 0]

    @torch.inference_mode()
    def scores(self, judged: Sequence[Judged], *, max_tokens: int, max_rows: int) -> list[float | None]:
        rows = self.rows(judged)
        found: list[float | None] = [None] * len(rows)
        readable = [i for i, row in enumerate(rows) if self.reads(row)]
        for batch in micro_batches([rows[i] for i in readable], max_tokens):
            for start in range(0, len(batch), max_rows):
                chosen = [readable[i] for i in batch[start : start + max_rows]]
                for index, score in zip(chosen, self.forward([rows[i] for i in chosen]).tolist(), strict=True):
                    found[index] = score
        return found

    def reads(self, row: Row) -> bool:
        """Whether a row fits into the context; one place is taken by the token that is not read."""
        return row.length < self.policy.context_length
