"""What can be found wrong before the first step is found here, before a folder or a process exists."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import chain

from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.length_target import COLUMN as LENGTH_COLUMN
from hybrid_rl.algorithm.length_target import with_target
from hybrid_rl.algorithm.rules import loss_rules
from hybrid_rl.algorithm.scheme_check import check_scheme
from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.config import Config, KindConfig
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.errors import ConfigError, DataError, PluginError
from hybrid_rl.insight.names import metric_names
from hybrid_rl.insight.set_material import prepare_sets
from hybrid_rl.insight.stop import check_stop_condition
from hybrid_rl.loggers import check_loggers
from hybrid_rl.plugins import check_call, load
from hybrid_rl.policy import PolicyOutline, outline_policy
from hybrid_rl.records import Prompt
from hybrid_rl.scoring import Scorer
from hybrid_rl.scoring.reference_check import refuse_unreadable
from hybrid_rl.updates.optimizer import check_parts, scale_of

_LOOKED_AT = 64
"""Prompts of each split that are rendered and measured beforehand; the rest is met during the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the driver needs of a checked config.

    Attributes:
        format: the policy's chat format.
        prompts: training prompts.
        eval_prompts: the held-out prompts of an evaluation.
        wants_thought: by mode, whether it asks for a thought.
        full_precision: forward passes are in float32.
        num_parameters: of the model, without an adapter.
        num_trained_parameters: of those, or of the adapter, what the optimizer may change.
        context_length: longest prompt and response together, in tokens.
        thinking_modes: those that may have a thought.
        set_prompts: the prompts of each evaluation set.
    """

    format: TemplateChatFormat
    prompts: Mixture
    eval_prompts: list[Prompt]
    wants_thought: dict[str, bool]
    full_precision: bool
    num_parameters: int
    num_trained_parameters: int
    context_length: int
    thinking_modes: tuple[str, ...]
    set_prompts: dict[str, list[Prompt]]


def prepare(config: Config, checkpoint: str | None = None) -> Material:
    """Load data, chat format and plug-ins, and check that they fit together.

    Args:
        checkpoint: folder with the processor, instead of the config's model.

    Raises:
        UserError: what is wrong, where, and how to mend it.
    """
    outline = outline_policy(
        config.model, config.modes, seed=config.run.seed, search=config.search, checkpoint=checkpoint
    )
    chat = outline.format
    _check_optimizers(config, outline)
    _check_budgets(config, chat)
    loss_rules(config)
    check_scheme(config, chat)
    schedule = mode_schedule(config)
    seed, search = config.run.seed, config.search
    prompts = make_mixture(config.data.sources, "train", seed, search)
    if config.modes.assign == "column":
        # Any row may name a mode that does not exist, and a run must not end there after hours.
        for prompt in prompts.every():
            schedule.assign(1, [prompt], config.train.responses_per_prompt)
    held_out = make_mixture(config.data.sources, "eval", seed, search).first(config.evaluation.prompts_per_mode)
    trained = prompts.first(_LOOKED_AT)
    looked_at = [*trained, *held_out[:: max(1, len(held_out) // _LOOKED_AT)]]
    wants_thought = {mode: chat.thought(mode) == "opened" for mode in config.modes.kinds}
    scorer = Scorer(config.rewards, search, wants_thought)
    scorer.begin()  # what the references are read with is imported while the prompts are looked at
    for place, prompt in enumerate(looked_at):
        scorer.check(prompt)
        _check_length(config, chat, prompt, outline.context_length, trained=place < len(trained))
        if scorer.reads_reference(prompt):
            _check_read_reference(config, chat, prompt, outline.context_length)
    _check_references(config, chat, looked_at)
    _check_targets(config, scorer, looked_at)
    thinking = tuple(mode for mode in config.modes.kinds if chat.thought(mode) != "closed")
    sets = prepare_sets(config, chat, scorer, outline.context_length, thinking)
    refuse_unreadable(config.rewards, search, wants_thought, looked_at)
    scorer.check_services()
    if config.train.async_steps:
        scorer.check_without_policy()
    _check_engine(config)
    check_loggers(config.log)
    _check_metric_names(config, looked_at)
    if config.warmup is not None and config.model.path is None:
        _check_warmup(config, chat)
    return Material(
        format=chat,
        prompts=prompts,
        eval_prompts=held_out,
        wants_thought=wants_thought,
        full_precision=outline.full_precision,
        num_parameters=outline.num_parameters,
        num_trained_parameters=sum(
            size
            for name, size in outline.trainable.items()
            if scale_of(name, config.train.optimizer, config.model.parts) != 0
        ),
        context_length=outline.context_length,
        thinking_modes=thinking,
        set_prompts=sets,
    )


def _check_optimizers(config: Config, outline: PolicyOutline) -> None:
    optimizers = {"train": config.train.optimizer}
    if config.warmup is not None and config.model.path is None:
        optimizers["warmup"] = config.warmup.optimizer
    for stage, optimizer in optimizers.items():
        check_parts(
            outline.trainable,
            optimizer,
            config.model.parts,
            key=f"{stage}.optimizer",
            adapter=config.model.lora is not None,
        )


def _check_budgets(config: Config, chat: TemplateChatFormat) -> None:
    for mode, kind in config.modes.kinds.items():
        least = chat.shortest_response(mode)
        if kind.max_new_tokens < least:
            raise ConfigError(
                f"modes.kinds.{mode}.max_new_tokens is {kind.max_new_tokens}, but the shortest valid response of the "
                f"mode has {least} tokens; raise it"
            )
        _check_thinking_budget(mode, kind, chat)


def _check_thinking_budget(mode: str, kind: KindConfig, chat: TemplateChatFormat) -> None:
    if kind.max_think_tokens is None:
        return
    if chat.thought(mode) == "closed":
        raise ConfigError(
            f"modes.kinds.{mode}.max_think_tokens: the mode has no thought that could be closed; remove it"
        )
    # The shortest answer is one token, and one more stops it.
    least = chat.shortest_response_at(mode, kind.max_think_tokens)
    if least > kind.max_new_tokens:
        raise ConfigError(
            f"modes.kinds.{mode}.max_think_tokens is {kind.max_think_tokens} and {least - kind.max_think_tokens - 2} "
            f"tokens are forced, which leaves no answer within max_new_tokens ({kind.max_new_tokens}); lower the "
            f"one or raise the other"
        )


def _check_length(
    config: Config, chat: TemplateChatFormat, prompt: Prompt, context_length: int, *, trained: bool
) -> None:
    for mode, kind in config.modes.kinds.items():
        length = len(chat.prompt_ids(with_target(prompt, mode, config.modes.kinds), mode))
        longest = length + kind.max_new_tokens
        fewer = ", or show fewer frames (model.video)" if prompt.videos else ""
        where = (
            f"prompt {prompt.id} of source {prompt.source} has {length} tokens and mode {mode} may add "
            f"{kind.max_new_tokens}"
        )
        if longest > context_length:
            raise DataError(
                f"{where}, more than the model's context of {context_length}; shorten the prompt or "
                f"lower modes.kinds.{mode}.max_new_tokens{fewer}"
            )
        if trained and longest > config.train.max_tokens_per_micro_batch:
            raise ConfigError(
                f"{where}, more than train.max_tokens_per_micro_batch ({config.train.max_tokens_per_micro_batch}); "
                f"raise that to {longest} or more{fewer}"
            )


def _check_read_reference(config: Config, chat: TemplateChatFormat, prompt: Prompt, context_length: int) -> None:
    """A reference answer that the policy is to read behind the longest thought that it may sample."""
    where = f"prompt {prompt.id} of source {prompt.source}"
    if not prompt.gold.strip():
        raise DataError(
            f"{where} has an empty reference answer, whose probability is asked for; give the row an answer"
        )
    for mode, kind in config.modes.kinds.items():
        length = len(chat.prompt_ids(prompt, mode)) + len(chat.answer_ids(prompt, mode, prompt.gold))
        if length + kind.max_new_tokens > context_length:
            raise DataError(
                f"{where} has {length} tokens with its reference answer, and mode {mode} may add a thought of "
                f"{kind.max_new_tokens}, more than the model's context of {context_length}; shorten the prompt or "
                f"lower modes.kinds.{mode}.max_new_tokens"
            )


def reference_length(chat: TemplateChatFormat, prompt: Prompt, mode: str) -> int:
    """Tokens of the reference as a response; where a thought is asked for and the data has none, the least there is."""
    thought = ""
    if chat.thought(mode) == "opened":
        thought = prompt.thought or chat.prefill(mode) + "x"
    return len(chat.response_ids(prompt, mode, thought, prompt.gold))


def _check_references(config: Config, chat: TemplateChatFormat, prompts: list[Prompt]) -> None:
    """A budget that cuts every right answer teaches that nothing is right."""
    for mode, kind in config.modes.kinds.items():
        least = min((reference_length(chat, prompt, mode) for prompt in prompts), default=0)
        if least > kind.max_new_tokens:
            raise ConfigError(
                f"modes.kinds.{mode}.max_new_tokens is {kind.max_new_tokens}, but none of the {len(prompts)} "
                f"references that were looked at fits: the shortest has {least} tokens in this mode; raise the budget"
            )


def _check_targets(config: Config, scorer: Scorer, prompts: list[Prompt]) -> None:
    """A reward on the length that is asked for is no use where none is."""
    asked = any(kind.target_length is not None for kind in config.modes.kinds.values())
    for part in scorer.asking_for(LENGTH_COLUMN):
        if not asked and not any(LENGTH_COLUMN in prompt.columns for prompt in prompts):
            raise ConfigError(
                f"rewards.{part} compares with the length that the prompt asks for, and no prompt asks for one; give "
                f"modes.kinds.NAME a {LENGTH_COLUMN}"
            )


def _check_engine(config: Config) -> None:
    engine = load(config.rollout.engine, config.search)
    if not callable(getattr(engine, "generate", None)):
        raise PluginError(
            f"rollout.engine '{config.rollout.engine}' has no generate(requests); see hybrid_rl.protocols.RolloutEngine"
        )
    check_call(config.rollout.engine, engine, ["policy"], config.rollout.args)


def _check_metric_names(config: Config, prompts: list[Prompt]) -> None:
    tasks = list(
        dict.fromkeys(chain((p.task for p in prompts), *(part.by_task or {} for part in config.rewards.values())))
    )
    names = metric_names(config.modes.kinds, config.rewards, tasks, config.data.sources)
    wanted = config.checkpoints.keep_best
    if wanted is not None and wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.3)
        hint = f"; did you mean '{near[0]}'?" if near else "; docs/metrics.md lists them"
        raise ConfigError(f"checkpoints.keep_best: there is no metric '{wanted}'{hint}")
    check_stop_condition(config, names, tasks)


def _check_warmup(config: Config, chat: TemplateChatFormat) -> None:
    assert config.warmup is not None
    examples = make_mixture(config.warmup.sources, "train", config.run.seed, config.search)
    for prompt in examples.first(_LOOKED_AT):
        for mode in config.warmup.sources[prompt.source].modes or config.modes.kinds:
            if chat.thought(mode) == "opened" and not prompt.thought:
                raise DataError(
                    f"warmup: prompt {prompt.id} of source {prompt.source} has no reference thought, which mode {mode} "
                    f"learns from; give the data a `thought` column"
                )
            chat.response_ids(prompt, mode, prompt.thought if chat.thought(mode) != "closed" else "", prompt.gold)
