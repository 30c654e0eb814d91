"""The supervised stage: the policy learns both formats, and some skill, from reference thoughts and answers.

Long-CoT warm-up of MiniCPM-V 4.5 (arXiv 2509.18154, section 2.3) in small. The loss is the mean negative log-likelihood
of a mode's target tokens, averaged over modes, so that long targets do not drown short ones. Learning rate: WSD.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from hybrid_rl.algorithm.modes import StratifiedModes
from hybrid_rl.algorithm.schedule import wsd
from hybrid_rl.config import Config
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.data.sources import make_mixture
from hybrid_rl.errors import DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Prompt, stable_seed
from hybrid_rl.updates.forward import batches_of, response_logprobs
from hybrid_rl.updates.optimizer import PartOptimizer
from hybrid_rl.updates.pass_memory import learning_pass
from hybrid_rl.updates.rows import Row


class SupervisedStage:
    """Takes the supervised steps of a policy, in order; step i is a pure function of the seed and i.

    Args:
        done: steps taken before, when the stage goes on after an interruption.
    """

    def __init__(self, policy: Policy, config: Config, done: int = 0) -> None:
        assert config.warmup is not None
        self._policy = policy
        self._config = config.warmup
        self._max_tokens = config.train.max_tokens_per_micro_batch
        self._seed, self._search = config.run.seed, config.search
        self._mixtures: dict[tuple[str, ...], Mixture] = {}
        # Every mode alike, whatever the shares of the GRPO stage: one warm-up serves all ratios.
        self._modes = {
            name: StratifiedModes(_equal(source.modes or list(config.modes.kinds)))
            for name, source in config.warmup.sources.items()
        }
        self.optimizer = PartOptimizer(policy.model, config.warmup.optimizer, config.model.parts)
        self.done = done

    def advance(self, count: int) -> float:
        """Take up to `count` more steps and return their mean loss, in nats a token."""
        losses = []
        for _ in range(min(count, self._config.steps - self.done)):
            losses.append(self._step(self.done + 1))
            self.done += 1
        return sum(losses) / len(losses) if losses else float("nan")

    def _step(self, step: int) -> float:
        config = self._config
        rows, modes = self._batch(step)
        tokens: Counter[str] = Counter()
        for row, mode in zip(rows, modes, strict=True):
            tokens[mode] += len(row.response)
        total = 0.0
        batches = batches_of(self._policy, rows, self._max_tokens)
        with learning_pass(rows, batches) as memory:
            for batch in batches:
                output = response_logprobs(self._policy, [rows[i] for i in batch], memory)
                weights_B = output.logprobs_BL.new_tensor([1 / (len(tokens) * tokens[modes[i]]) for i in batch])
                loss = -(output.logprobs_BL.sum(-1) * weights_B).sum()
                loss.backward()
                total += loss.item()
        self.optimizer.step(wsd(step, config.steps, config))
        return total

    def _batch(self, step: int) -> tuple[list[Row], list[str]]:
        """Rows and modes of a step."""
        prompts = self._mixture(step).draw(step, self._config.batch_size)
        modes: list[str] = []
        for name, members in groupby(prompts, key=lambda prompt: prompt.source):
            modes += self._modes[name].assign(step, len(list(members)))
        return [self._row(prompt, mode) for prompt, mode in zip(prompts, modes, strict=True)], modes

    def _mixture(self, step: int) -> Mixture:
        """The sources that are drawn from at a step, built when the first of these steps comes."""
        names = tuple(self._config.active(step))
        if names not in self._mixtures:
            sources = {name: self._config.sources[name] for name in names}
            self._mixtures[names] = make_mixture(sources, "train", self._seed, self._search)
        return self._mixtures[names]

    def _row(self, prompt: Prompt, mode: str) -> Row:
        chat = self._policy.format
        thought = prompt.thought if chat.thought(mode) != "closed" else ""
        if chat.thought(mode) == "free" and stable_seed("thinks", self._seed, prompt.id) % 2:
            thought = ""  # where the model chooses, it has to know both
        if chat.thought(mode) == "opened" and not thought:
            raise DataError(
                f"prompt {prompt.id} of source {prompt.source} has no thought for mode {mode} to learn from"
            )
        return Row(chat.inputs(prompt, mode), chat.response_ids(prompt, mode, thought, prompt.gold))


def _equal(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1 / len(names))
