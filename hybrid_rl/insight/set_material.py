"""The prompts of the evaluation sets, checked before a run begins."""

from __future__ import annotations

from collections.abc import Sequence

from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.config import Config
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.errors import ConfigError, DataError
from hybrid_rl.insight.evaluation_sets import modes_of_set
from hybrid_rl.records import Prompt
from hybrid_rl.scoring import Scorer

_LOOKED_AT = 64
"""Prompts of each set that are rendered and measured beforehand."""


def prepare_sets(
    config: Config, chat: TemplateChatFormat, scorer: Scorer, context_length: int, thinking: Sequence[str]
) -> dict[str, list[Prompt]]:
    """Prompts by name of the set.

    Args:
        context_length: of the policy, in tokens.
        thinking: modes that may have a thought.

    Raises:
        UserError: a source does not load, no reward fits a prompt, or a budget fits no response or no context.
    """
    result = {}
    for name, chosen in config.evaluation.sets.items():
        mixture = make_mixture(chosen.sources or config.data.sources, "eval", config.run.seed, config.search)
        prompts = mixture.first(chosen.prompts_per_mode)
        kinds = modes_of_set(chosen, config.modes, thinking).kinds
        for mode, kind in kinds.items():
            least = chat.shortest_response(mode)
            if kind.max_think_tokens is not None:
                least = chat.shortest_response_at(mode, kind.max_think_tokens)
            if kind.max_new_tokens < least:
                raise ConfigError(
                    f"evaluation.sets.{name}: in mode {mode} a response may have {kind.max_new_tokens} tokens, and the "
                    f"shortest one that uses its thinking budget has {least}; raise max_new_tokens"
                )
        for prompt in prompts[:: max(1, len(prompts) // _LOOKED_AT)]:
            scorer.check(prompt)
            for mode, kind in kinds.items():
                length = len(chat.prompt_ids(prompt, mode))
                if length + kind.max_new_tokens > context_length:
                    raise DataError(
                        f"evaluation.sets.{name}: prompt {prompt.id} has {length} tokens and mode {mode} may add "
                        f"{kind.max_new_tokens}, more than the model's context of {context_length}; lower it"
                    )
        result[name] = prompts
    return result
