"""A preference model as a reward: how much people would like the final answer (Bradley-Terry, images included)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from hybrid_rl.config.model import ModelConfig
from hybrid_rl.records import Prompt

if TYPE_CHECKING:
    from hybrid_rl.preference.judged import Judged, PreferenceScorer

On = Literal["answer", "whole_text"]
DType = Literal["auto", "float32", "bfloat16"]


class Preference:
    """The score of a preference model, which means something beside other scores of the same prompt alone.

    Scores have no zero and no unit: weigh them with `weight: 0.5, standardize: true`. A response without a final
    answer, or longer than the model reads, has no score. Equal answers to a prompt have exactly equal scores.

    Args:
        path: folder of a sequence classifier with one label (text alone), or one that `hybrid_rl.preference` has saved
            (a policy's backbone with a scalar head, images included).
        on: `answer` shows the model the final answer alone, so that a thought cannot please it; `whole_text` the
            response as sampled, for comparison.
        max_tokens: padded tokens of prompts and answers that are forwarded at once.
        max_rows: answers that are forwarded at once.
        device, dtype, modules, backbone: as the keys of `model` with these names.
    """

    runs_in = "actor"
    per = "batch"

    def __init__(
        self,
        path: str,
        on: On = "answer",
        max_tokens: int = 16384,
        max_rows: int = 64,
        device: str = "auto",
        dtype: DType = "auto",
        modules: Sequence[str] = ("model",),
        backbone: str | None = None,
    ) -> None:
        for name, value, known in (("on", on, get_args(On)), ("dtype", dtype, get_args(DType))):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it is one of {', '.join(known)}")
        for name, number in (("max_tokens", max_tokens), ("max_rows", max_rows)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}; it must be a whole number of at least 1")
        self._path = path
        self._on = on
        self._budget = {"max_tokens": max_tokens, "max_rows": max_rows}
        self._options = ModelConfig(device=device, dtype=dtype, modules=list(modules), backbone=backbone)
        self._scorer: PreferenceScorer | None = None

    def check(self) -> None:
        """Raise a ConfigError if the folder holds no preference model."""
        from hybrid_rl.preference.folder import check_folder

        check_folder(self._path)

    def warm_up(self) -> None:
        """Load the weights. Raises a ConfigError if they do not load."""
        from hybrid_rl.preference.folder import open_scorer

        if self._scorer is None:
            self._scorer = open_scorer(self._path, self._options, search=(".",))

    def __call__(
        self, prompt: Sequence[Prompt], answer: Sequence[str | None], text: Sequence[str]
    ) -> list[float | None]:
        """A score for each response, None for those without one."""
        from hybrid_rl.preference.judged import Judged, prompt_key

        shown = answer if self._on == "answer" else text
        distinct: dict[Any, Judged] = {}
        keys = []
        for question, seen in zip(prompt, shown, strict=True):
            key = None if seen is None else (prompt_key(question), seen)
            keys.append(key)
            if key is not None and seen is not None:
                distinct.setdefault(key, Judged(question, seen))
        scores = dict(zip(distinct, self._scores(list(distinct.values())), strict=True))
        return [None if key is None else scores[key] for key in keys]

    def _scores(self, judged: Sequence[Judged]) -> list[float | None]:
        if not judged:
            return []
        self.warm_up()
        assert self._scorer is not None
        return self._scorer.scores(judged, **self._budget)
