"""What the doctor finds before a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_groups

from hybrid_rl.cli.main import EXIT_USER_ERROR, main
from hybrid_rl.config import Config
from hybrid_rl.doctor.examine import examine
from hybrid_rl.doctor.findings import Finding, Grade
from hybrid_rl.doctor.forecast import forecast
from hybrid_rl.doctor.memory import examine_memory
from hybrid_rl.doctor.trial import Trial, _consistency, _latencies
from hybrid_rl.errors import ConfigError
from hybrid_rl.preflight import prepare
from hybrid_rl.records import Outcome, Rollout, Score

SmallConfig = Callable[..., Config]


def by_topic(config: Config) -> dict[str, Finding]:
    return {finding.topic: finding for finding in examine(config)}


def test_a_policy_that_never_ends_is_refused_with_the_reason(
    small_config: SmallConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights stop by chance only: with a small budget nearly every response is cut."""
    found = by_topic(small_config("warmup=null", "modes.kinds.short.max_new_tokens=8"))
    assert found["truncation short"].grade is Grade.REFUSE
    assert "raise modes.kinds.short.max_new_tokens" in found["truncation short"].sentence
    assert found["consistency"].grade is Grade.OK
    assert found["signal short"].grade is Grade.WARN and found["forecast"].figures["tokens"]
    assert {"reward accuracy", "reward format", "memory", "images", "prompts long"} <= found.keys()

    from conftest import DEFAULT_CONFIG, SMALL

    arguments = ["doctor", str(DEFAULT_CONFIG), *SMALL, "warmup=null", "modes.kinds.short.max_new_tokens=8"]
    monkeypatch.setattr("sys.argv", ["hybrid-rl", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == EXIT_USER_ERROR
    assert "this run should not be started: truncation short:" in capsys.readouterr().err


def test_without_its_warm_up_the_policy_is_not_tried(
    small_config: SmallConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    found = by_topic(small_config())
    assert "not warmed up yet" in found["trial"].sentence and "truncation short" not in found


def test_prompts_and_images_are_counted_in_tokens(small_config: SmallConfig) -> None:
    config = small_config()
    material = prepare(config)
    found = by_topic(config)
    prompt = material.prompts.first(1)[0]
    assert found["prompts short"].figures["most"] == len(material.format.prompt_ids(prompt, "short"))
    # <image>, its id, four queries, and their ends: what the text alone does not have
    bare = replace(prompt, images=())
    added = len(material.format.prompt_ids(prompt, "short")) - len(material.format.prompt_ids(bare, "short"))
    assert found["images"].figures["tokens_per_image"] == added


def test_train_itself_refuses_a_budget_that_no_reference_fits(tmp_path: Path, small_config: SmallConfig) -> None:
    rows = [
        {
            "prompt": "Say it.",
            "gold": "one two three four five six seven eight nine ten eleven twelve",
            "task": "read",
        }
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    source = (
        "data.sources={text: {target: 'hybrid_rl.data.files:FileSource', args: {path: rows.jsonl, eval_fraction: 0.5}}}"
    )
    with pytest.raises(ConfigError, match=r"none of the \d+ references that were looked at fits: the shortest has"):
        prepare(small_config(source, f"search=[{tmp_path}]", "modes.kinds.short.max_new_tokens=6", "warmup=null"))


def test_memory_by_hand(small_config: SmallConfig) -> None:
    config = small_config("train.max_tokens_per_micro_batch=1000")
    material: Any = SimpleNamespace(full_precision=True, num_parameters=10**6, num_trained_parameters=10**6)
    text: Any = SimpleNamespace(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=100
    )
    (finding,) = examine_memory(config, material, text, longest_prompt=36)
    # 4 responses of 36 + 64 tokens, 2 layers, keys and values of 2 heads of 16, 4 bytes each
    assert finding.figures["group_gib"] == pytest.approx(4 * 100 * 2 * 2 * 2 * 16 * 4 / 2**30)
    # 1000 tokens x (34 x 64 + 5 x 4 x 100) x 2 layers x 2 (for 32 bit), and three copies of the logits
    assert finding.figures["micro_batch_gib"] == pytest.approx((1000 * 4176 * 2 * 2 + 1000 * 100 * 12) / 2**30)


def test_an_engine_that_computes_something_else_is_refused(
    small_config: SmallConfig, make_rollout: Callable[..., Rollout]
) -> None:
    rollouts = [make_rollout([1, 2], logprobs=[-1.0, -2.0]), make_rollout([3], logprobs=[-0.5])]
    groups = make_groups(rollouts, [Score(value=1.0), Score(value=0.0)], eps=1e-4, min_std=1e-6)
    material: Any = SimpleNamespace(full_precision=True)
    same = _consistency(small_config(), material, groups, [[(-1.0, -2.0), (-0.5,)]])
    other = _consistency(small_config(), material, groups, [[(-1.0, -2.1), (-0.5,)]])
    assert same.grade is Grade.OK and same.figures["ratio_deviation"] == 0
    assert other.grade is Grade.REFUSE and other.figures["ratio_deviation"] == pytest.approx(0.0952, abs=1e-3)


def test_a_slow_reward_is_named_before_it_times_out(small_config: SmallConfig) -> None:
    def scored(seconds: float, outcome: Outcome = Outcome.OK) -> Score:
        return Score(value=0.0, outcomes={"accuracy": outcome}, seconds={"accuracy": seconds})

    quick, near, late = (
        _latencies(small_config(), scores)[0]
        for scores in ([scored(0.01)], [scored(0.01), scored(0.7)], [scored(1.0, Outcome.TIMEOUT)])
    )
    assert [quick.grade, near.grade, late.grade] == [Grade.OK, Grade.WARN, Grade.WARN]
    assert "near its limit of 1000 ms" in near.sentence and "1 of 1 were over the limit" in late.sentence


def test_the_forecast_by_hand(small_config: SmallConfig) -> None:
    # 3 steps x 4 prompts x 4 responses, half in each mode: 24 x 10 and 24 x 50 tokens
    trial = Trial([], {"short": 10.0, "long": 50.0}, {"generate": 1.0, "score": 0.5, "update": 2.0})
    found = forecast(small_config(), trial)
    assert found.figures["tokens"] == 24 * 60 and found.figures["tokens_long"] == 24 * 50
    assert found.figures["hours"] == pytest.approx(24 * 60 * 3.5 / 3600)
