"""A reference that its own reward cannot read is refused before a run, for built-in and foreign rewards alike."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybrid_rl import PluginError
from hybrid_rl.config.rewards import RewardConfig
from hybrid_rl.errors import DataError
from hybrid_rl.records import Message, Prompt
from hybrid_rl.scorer_pool.loading import RewardSpec, load_reward
from hybrid_rl.scoring import reference_check
from hybrid_rl.scoring.reference_check import refuse_unreadable

FOREIGN = """\
import time

def picky(answer, gold):
    return None if gold == "?" else float(answer == gold)

def declared(answer, gold):
    return picky(answer, gold)
declared.blames_reference = True

def slow(answer, gold):
    time.sleep(600)
slow.blames_reference = True

async def elsewhere(answer, gold):
    raise AssertionError
elsewhere.blames_reference = True

class Asks:
    blames_reference, runs_in = True, "actor"
    def __call__(self, answer, gold):
        raise AssertionError

def unsure(answer, gold):
    return 1.0
unsure.blames_reference = "perhaps"
"""


def prompt(gold: str, number: int = 0) -> Prompt:
    return Prompt(id=f"row/{number}", source="mine", task="t", messages=(Message(role="user", text="?"),), gold=gold)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """The refusal of references by a part, or an empty text."""
    (tmp_path / "foreign.py").write_text(FOREIGN)

    def ask(target: str, *golds: str, **part: Any) -> str:
        rewards = {"accuracy": RewardConfig(target=target, timeout_s=0.2 if "slow" in target else 10, **part)}
        prompts = [prompt(gold, number) for number, gold in enumerate(golds)]
        try:
            refuse_unreadable(rewards, [str(tmp_path)], {"short": False}, prompts)
        except DataError as error:
            return str(error)
        return ""

    return ask


@pytest.mark.parametrize("target", ["foreign.py:declared", "math_answer", "truth", "rewards.math_answer:math_boxed"])
def test_the_sentence_names_reward_row_reference_and_what_to_do(refused: Callable[..., str], target: str) -> None:
    sentence = refused(target, "yes" if target == "truth" else "3", "?" if "foreign" in target else "\\frac{1}{")
    assert all(piece in sentence for piece in ("rewards.accuracy", "row/1 of source mine", "mend or remove the row"))
    assert "'?' cannot be read" in sentence or "'\\frac{1}{' cannot be read" in sentence


def test_an_empty_reference_is_refused(refused: Callable[..., str]) -> None:
    assert "the reference answer is empty" in refused("ocr_match", "12", " ")


@pytest.mark.parametrize("target", ["foreign.py:picky", "foreign.py:elsewhere", "foreign.py:Asks"])
def test_rewards_that_do_not_declare_it_or_run_elsewhere_are_not_asked(
    refused: Callable[..., str], target: str
) -> None:
    assert refused(target, "?") == ""


def test_a_standardised_part_may_abstain(refused: Callable[..., str]) -> None:
    assert refused("foreign.py:declared", "?", standardize=True) == ""


def test_a_reward_that_hangs_does_not_keep_a_run_from_starting(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_check, "_MAX_S", 0.0)
    began = time.monotonic()
    assert refused("foreign.py:slow", *map(str, range(100))) == ""
    assert time.monotonic() - began < 60, "a hundred references at 0.2 s each, two at a time, are 10 s"


def test_a_wrong_declaration_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    with pytest.raises(PluginError, match="declares blames_reference = 'perhaps'; it is True or False"):
        load_reward(RewardSpec("mine", "foreign.py:unsure", search=(str(tmp_path),)))


def test_a_run_is_refused_at_its_start(
    small_config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from hybrid_rl.cli.main import main

    rows = [{"prompt": f"{i}?", "gold": "\\frac{1}{" if i == 7 else str(i)} for i in range(20)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "c.yaml").write_text("""\
data: {sources: {mine: {target: "hybrid_rl.data.files:FileSource", args: {path: d.jsonl, eval_fraction: 0.2}}}}
modes:
  long_ratio: 0.5
  kinds:
    short: {template_args: {enable_thinking: false}, max_new_tokens: 8}
    long: {template_args: {enable_thinking: true}, max_new_tokens: 16}
rewards: {accuracy: {target: math_answer}}
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hybrid-rl", "train", "c.yaml", "run.dir=out"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "rewards.accuracy would abstain on every answer to prompt" in line and "'\\frac{1}{' cannot be read" in line
    assert not (tmp_path / "out").exists()
