"""The peer of `benchmarks.grpo_step`: TRL's GRPOTrainer on the same weights, prompts and lengths.

The trainer's own loop runs; a callback lets it go on by one step when the benchmark asks for one, so that steps after
the first are warm.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.grpo_cases import FIRST_NUMBER, Workload, pictures, reward
from benchmarks.grpo_folder import image_processor, tokenizer
from benchmarks.sides import Turns
from hybrid_rl.processors import compose_processor


class ForcedLengths(LogitsProcessor):
    """Stop tokens come exactly where a response is to end. One at the longest length is cut there instead."""

    def __init__(self, lengths: list[int], prompt_tokens: int, stop: int, never: list[int], longest: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._prompt_tokens = prompt_tokens
        self._stop, self._never, self._longest = stop, never, longest

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        made = input_ids.shape[1] - self._prompt_tokens
        scores = scores.clone()
        scores[:, self._never] = float("-inf")
        ends = (self._lengths == made + 1) & (self._lengths < self._longest)
        scores[ends] = float("-inf")
        scores[ends, self._stop] = 0.0
        return scores


class TrlStep:
    """A trainer that takes a step when it is told to.

    Args:
        folder: of the policy.
        micro_batch: rows of one forward and backward pass of the update.
    """

    def __init__(self, work: Workload, folder: Path, micro_batch: int, turns: Turns) -> None:
        self._work, self._turns = work, turns
        self._generate_s = 0.0
        self._encodes = {"generate": 0, "update": 0}
        self._phase = "update"
        self._began = 0.0
        self._tokens = 0
        self._tokenizer = tokenizer(work.sizes)
        self._trainer = self._make(folder, micro_batch)
        self._watch(self._trainer.model)

    def train(self) -> None:
        """Take steps until the turns end."""
        self._trainer.train()

    def _make(self, folder: Path, micro_batch: int) -> GRPOTrainer:
        from datasets import Dataset

        work = self._work
        rows = work.sizes.prompts * work.sizes.group
        arguments = GRPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=rows // micro_batch,
            num_generations=work.sizes.group,
            max_completion_length=work.longest,
            max_steps=10_000,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            beta=0.0,
            shuffle_dataset=False,
            use_cpu=True,
            bf16=work.case.dtype == "bfloat16",
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        return GRPOTrainer(
            model=_load(work, folder),
            reward_funcs=self._reward,
            args=arguments,
            train_dataset=Dataset.from_list([_row(work, p) for p in range(work.sizes.prompts)]),
            processing_class=self._processor(),
            callbacks=[_OneStep(self)],
        )

    def _processor(self) -> Any:
        if self._work.case.tower is None:
            return self._tokenizer
        from transformers import Qwen2_5_VLProcessor

        return compose_processor(Qwen2_5_VLProcessor, image_processor(self._work.sizes), self._tokenizer)

    def _reward(self, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        self._tokens = sum(map(len, completion_ids))
        return [reward(ids) for ids in completion_ids]

    def _watch(self, model: Any) -> None:
        """Force lengths in `generate` and time it; count the images that the tower is given."""
        generate = model.generate

        def forced(*arguments: Any, **options: Any) -> Any:
            self._phase, start = "generate", time.perf_counter()
            options["logits_processor"] = LogitsProcessorList([self._forced(options["input_ids"])])
            found = generate(*arguments, **options)
            self._generate_s += time.perf_counter() - start
            self._phase = "update"
            return found

        model.generate = forced
        tower = getattr(getattr(model, "model", None), "visual", None)
        if tower is not None:
            tower.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        self._encodes[self._phase] += len(options["grid_thw"] if "grid_thw" in options else arguments[1])

    def _forced(self, ids: Any) -> ForcedLengths:
        """The lengths of a batch's rows, by the number that each prompt holds."""
        seen: Counter[int] = Counter()
        numbers = range(FIRST_NUMBER, FIRST_NUMBER + self._work.sizes.prompts)
        lengths = []
        for row in ids.tolist():
            prompt = next(word for word in row if word in numbers) - FIRST_NUMBER
            lengths.append(self._work.lengths[prompt][seen[prompt]])
            seen[prompt] += 1
        never = [i for i in range(8) if i < self._work.sizes.vocabulary]
        return ForcedLengths(lengths, ids.shape[1], self._tokenizer.eos_token_id, never, self._work.longest)

    def begin(self) -> bool:
        """Wait for the turn; False where there is none any more."""
        if not self._turns.wait():
            return False
        self._generate_s, self._encodes = 0.0, {"generate": 0, "update": 0}
        self._began = time.perf_counter()
        return True

    def end(self) -> None:
        """Answer with the figures of the step."""
        wall = time.perf_counter() - self._began
        assert self._tokens == self._work.response_tokens, (self._tokens, self._work.response_tokens)
        figures = {
            "wall": wall,
            "generate_s": self._generate_s,
            "update_s": wall - self._generate_s,
            "tokens_per_s": self._tokens / wall,
        }
        if self._work.case.tower:
            images = self._work.sizes.prompts * self._work.sizes.images_per_prompt
            figures |= {f"{phase}_encodes_per_image": count / images for phase, count in self._encodes.items()}
        self._turns.answer(figures)


class _OneStep(TrainerCallback):
    """Holds the trainer before every step."""

    def __init__(self, step: TrlStep) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self._step.begin():
            raise EndOfTurns

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._step.end()


class EndOfTurns(Exception):
    """Nobody asks for another step."""


def _load(work: Workload, folder: Path) -> Any:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3ForCausalLM

    cls: Any = Qwen2_5_VLForConditionalGeneration if work.case.tower else Qwen3ForCausalLM
    model = cls.from_pretrained(folder, dtype=torch.float32)
    if work.case.tower == "frozen":
        model.model.visual.requires_grad_(False)
    return model


def _row(work: Workload, number: int) -> dict[str, Any]:
    if work.case.tower is None:
        return {"prompt": work.texts[number]}
    from PIL import Image

    images = [Image.open(io.BytesIO(data)) for data in pictures(work.sizes, number)]
    return {"prompt": [{"role": "user", "content": work.texts[number]}], "images": images}
