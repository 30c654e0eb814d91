"""Our rewards under other trainers: the real GRPOTrainer, and verl's reward manager."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest

from hybrid_rl.bridges import TrlReward, VerlReward, split_thought
from hybrid_rl.errors import PluginError, RewardError

HERE = [str(Path(__file__).parent)]
MATCH = "rewards.ocr_match:ocr_match"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 7 ", ("", "7", False)),
        ("<think>3+4</think>7", ("3+4", "7", False)),
        ("3+4</think>\n7", ("3+4", "7", False)),
        ("<think>3+4", ("3+4", None, False)),
        ("<think>a</think><think>b</think>7", ("a</think><think>b", "7", True)),
        ("<think>a</think>7<think>", ("a", None, True)),
    ],
)
def test_thought_and_answer_of_a_text(text: str, expected: tuple[str, str | None, bool]) -> None:
    assert split_thought(text) == expected


def test_trl_gets_one_score_a_completion_and_none_where_the_reward_abstains() -> None:
    reward = TrlReward(MATCH, gold="solution")
    completions = ["<think>?</think>12", "<think>12", "13", [{"role": "assistant", "content": "12"}]]
    scores = reward(prompts=["q"] * 4, completions=completions, solution=["12"] * 4, trainer_state=None)
    assert scores == [1.0, 0.0, 0.0, 1.0]
    unruly = TrlReward("scorers.py:unruly", search=HERE, timeout_s=0.3)
    assert unruly(completions=["four", "abstain", "sleep"]) == [4.0, None, None]
    with pytest.raises(RewardError, match=r"'scorers.py:unruly' on response 1 of the batch failed: KeyError"):
        unruly(completions=["four", "raise"])
    assert pickle.loads(pickle.dumps(reward))(completions=["12"], solution=["12"]) == [1.0]
    with pytest.raises(PluginError, match=r"asks for 'gold'.* add such a column"):
        reward(completions=["12"], gold_answer=["12"])


def test_verl_gets_a_number_and_is_told_of_abstentions() -> None:
    reward = VerlReward(MATCH)
    assert reward("read", "<think>x</think>12", "12", {"index": 1}) == {"score": 1.0, "acc": 1.0, "abstained": 0.0}
    assert reward("read", "13", "12")["score"] == 0.0
    unruly = VerlReward("scorers.py:unruly", search=HERE, abstained_score=-1.0)
    assert unruly("read", "abstain", "12") == {"score": -1.0, "acc": -1.0, "abstained": 1.0}


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "?", *"0123456789"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="?")


@pytest.mark.slow
def test_a_step_of_grpo_trainer(tmp_path: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 13}
    ends: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **ends))
    seen: list[list[float | None]] = []

    class Recording(TrlReward):
        def __call__(self, *args: Any, **kwargs: Any) -> list[float | None]:
            seen.append(super().__call__(*args, **kwargs))
            return seen[-1]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[Recording("scorers.py:share_of_gold", search=HERE)],
        args=GRPOConfig(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=1,
            per_device_train_batch_size=4, num_generations=4, max_completion_length=4, report_to=[], logging_steps=1,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["12", "34"], "gold": ["1", "3"]}),
        processing_class=tiny_tokenizer(),
    )  # fmt: skip
    trainer.train()
    assert len(seen[0]) == 4 and all(isinstance(score, float) for score in seen[0])
    logged = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert logged[0] == pytest.approx(sum(score or 0.0 for score in seen[0]) / 4, abs=1e-6)


@pytest.mark.slow
def test_the_reward_manager_of_verl() -> None:
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

    tokenizer = tiny_tokenizer()
    ids = torch.tensor([tokenizer.encode("12", add_special_tokens=False)])
    data = DataProto.from_dict(
        tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
        non_tensors={
            "data_source": np.array(["read"], dtype=object),
            "reward_model": np.array([{"ground_truth": "1 2"}], dtype=object),
            "extra_info": np.array([{}], dtype=object),
        },
    )
    text = tokenizer.decode(ids[0])
    data.non_tensor_batch["reward_model"][0]["ground_truth"] = text

    async def scored() -> dict[str, Any]:
        manager = NaiveRewardManager(OmegaConf.create({}), tokenizer, VerlReward(MATCH))
        found: dict[str, Any] = await manager.run_single(data)
        return found

    found = asyncio.run(scored())
    assert found["reward_score"] == 1.0
    assert found["reward_extra_info"]["abstained"] == 0.0
