"""The probability of the reference answer (RLPR): by hand, against the model's own logits, and in whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from test_run import BARE, assert_same_run, interrupt_after, metrics, rows, summary

import hybrid_rl
from hybrid_rl.config import Config, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError, DataError, Interrupted
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.policy import Policy, load_policy
from hybrid_rl.records import AnswerQuery, Message, Prompt, Rollout
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.saved import evaluate_saved, open_saved
from hybrid_rl.scoring import Scorer
from hybrid_rl.train import resume
from hybrid_rl.updates.answers import answer_logprobs
from hybrid_rl.workers.cluster import InProcess
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.served_policy import ServedPolicy
from hybrid_rl.workers.setup import WorkerSetup
from rewards.likelihood import Likelihood, statistic_of

PART = "rewards.reference={target: 'rewards.likelihood:Likelihood', weight: 0.5}"


# --- by hand ---------------------------------------------------------------------------------------------------------


def prompt(gold: str = "ab", text: str = "?") -> Prompt:
    return Prompt(id="p", source="s", task="t", messages=(Message(role="user", text=text),), gold=gold)


class Spelling:
    """A chat format of one id a character; a thought ends at `/`. The mode `quick` asks for none."""

    modes = ("slow", "quick")

    def thought(self, mode: str) -> str:
        return "opened" if mode == "slow" else "closed"

    def answer_start(self, ids: Sequence[int], mode: str) -> int | None:
        if mode == "quick":
            return 0
        return list(ids).index(ord("/")) + 1 if ord("/") in ids else None

    def answer_ids(self, prompt: Prompt, mode: str, answer: str) -> tuple[int, ...]:
        return tuple(map(ord, answer))

    def no_thought_ids(self, mode: str) -> tuple[int, ...]:
        return () if mode == "quick" else (ord("/"),)


class Table:
    """A policy of two letters. p(a) is 0.9 behind a thought that says `a`, 0.4 behind another, 0.5 behind none, and 0.6
    initially, whatever stands before; p(b) is the rest."""

    format: Any = Spelling()

    def __init__(self) -> None:
        self.asked: list[tuple[bool, int]] = []

    def answer_logprobs(self, queries: Sequence[AnswerQuery], *, initial: bool = False) -> list[tuple[float, ...]]:
        self.asked.append((initial, len(queries)))
        found = []
        for query in queries:
            p = 0.6 if initial else {"": 0.5, "a": 0.9}.get("".join(map(chr, query.prefix_ids))[:1], 0.4)
            found.append(tuple(math.log(p if token == ord("a") else 1 - p) for token in query.target_ids))
        return found


def score(reward: Likelihood, table: Table, responses: Sequence[tuple[str, str]], gold: str = "aab") -> list[float]:
    """Values of responses given as (mode, text)."""
    asked = prompt(gold)
    return reward(
        ids=[tuple(map(ord, text)) for _, text in responses],
        mode=[mode for mode, _ in responses],
        wants_thought=[mode == "slow" for mode, _ in responses],
        gold=[gold] * len(responses),
        prompt=[asked] * len(responses),
        policy=table,
    )


def test_a_value_worked_by_hand() -> None:
    responses = [("slow", "a/x"), ("slow", "b/x"), ("slow", "never closed"), ("quick", "x"), ("quick", "aab")]
    base = (0.6 + 0.6 + 0.4) / 3
    expected = [(0.9 + 0.9 + 0.1) / 3 - base, max(0.0, (0.4 + 0.4 + 0.6) / 3 - base), 0.0]
    assert score(Likelihood(), Table(), responses) == pytest.approx([*expected, *[(0.5 + 0.5 + 0.5) / 3] * 2])
    assert expected[0] > 0.09 and expected[1] == 0.0
    without = score(Likelihood(baseline="none"), Table(), responses)
    assert without == pytest.approx([1.9 / 3, 1.4 / 3, 0.0, 0.5, 0.5])
    current = score(Likelihood(baseline="current"), Table(), responses)
    assert current[0] == pytest.approx(1.9 / 3 - 0.5)


def test_the_statistics_worked_by_hand() -> None:
    logprobs = [math.log(0.9), math.log(0.1), math.log(0.3)]
    assert statistic_of(logprobs, "mean_prob") == pytest.approx(1.3 / 3)
    assert statistic_of(logprobs, "product") == pytest.approx(0.027)
    assert statistic_of(logprobs, "geometric_mean") == pytest.approx(0.3)


def test_a_baseline_is_asked_for_once_for_each_prompt_and_reference() -> None:
    reward, table = Likelihood(), Table()
    responses = [("slow", "a/x"), ("slow", "b/x")]
    first = score(reward, table, responses)
    assert table.asked == [(False, 2), (True, 1)]
    assert score(reward, table, responses) == first
    assert table.asked[2:] == [(False, 2)]
    score(reward, table, responses, gold="b")
    assert table.asked[3:] == [(False, 2), (True, 1)]


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="prompt p of source s has an empty reference answer"):
        score(Likelihood(), Table(), [("slow", "a/x")], gold=" ")
    with pytest.raises(ConfigError, match="statistic is 'mean'; choose one of mean_prob"):
        Likelihood(statistic="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no mode 'fast'; modes.kinds has slow, quick"):
        Likelihood(baseline_mode="fast").check(["slow", "quick"])
    Likelihood(baseline_mode="quick").check(["slow", "quick"])


# --- against the model's own logits ----------------------------------------------------------------------------------


def plain_probabilities(policy: Policy, prompt: Prompt, mode: str, prefix: Sequence[int], target: Sequence[int]) -> Any:
    """Probability of each target token, by one plain forward pass of the model on everything concatenated.

    Prompts with images go through the processor as transformers' callers do it.
    """
    images = [hybrid_rl.images.open_image(ref) for ref in prompt.images]
    content = [*({"type": "image", "image": i} for i in images), {"type": "text", "text": prompt.messages[0].text}]
    inputs = policy.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        enable_thinking=mode == "long",
    )
    ids = torch.tensor([[*inputs.pop("input_ids")[0].tolist(), *prefix, *target]])
    inputs.pop("attention_mask", None)
    with torch.no_grad():
        logits = policy.model(input_ids=ids, **inputs).logits[0].double()
    logits[:, list(policy.forbidden_ids)] = -torch.inf  # never sampled
    probabilities = torch.softmax(logits, dim=-1)
    places = range(ids.shape[1] - len(target) - 1, ids.shape[1] - 1)
    return [float(probabilities[place, token]) for place, token in zip(places, target, strict=True)]


@pytest.fixture(scope="module")
def served() -> tuple[ServedPolicy, Policy, Policy]:
    """A policy and another initial one, served; and both for plain calls."""
    setups = [
        WorkerSetup(config=load_config(DEFAULT_CONFIG, [*SMALL, f"run.seed={seed}"]), checkpoint=None)
        for seed in (3, 4)
    ]
    worker, reference = RolloutWorker(setups[0]), ReferenceWorker(setups[1])
    policies = [load_policy(s.config.model, s.config.modes, seed=s.config.run.seed, search=[]) for s in setups]
    handle = ServedPolicy(setups[0], [InProcess(lambda: worker)], InProcess(lambda: reference))
    return handle, policies[0], policies[1]


@pytest.fixture
def sampled(make_rollout: Callable[..., Rollout], tiny_policy: Policy) -> list[Rollout]:
    """Responses to strips of digits in both modes, written by hand; groups are adjacent."""
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    chat, tokenizer = tiny_policy.format, tiny_policy.processor.tokenizer
    texts = {
        "short": ["12", "a rather long answer", "7"],
        "long": ["1+2\n</think>\n\n3", "\n</think>4", "no end of it", "so many words of thought\n</think>\n\n5"],
    }
    found = []
    for index, mode in enumerate(("short", "long", "long", "short")):
        for text in texts[mode]:
            ids = (*tokenizer.encode(text), *chat.stop_ids(mode)[:1])
            read = chat.parse(ids, mode)
            found.append(
                make_rollout(ids, mode=mode, group=str(index), prompt=source[index], text=text, answer=read.answer)
            )
    return found


def values_of(served: ServedPolicy, rollouts: Sequence[Rollout], **args: Any) -> list[float]:
    config = load_config(DEFAULT_CONFIG, [*SMALL, PART, *(f"rewards.reference.args.{k}={v}" for k, v in args.items())])
    part = {"reference": config.rewards["reference"]}
    scorer = Scorer(part, config.search, {"short": False, "long": True}, policy=served)
    return [found.parts["reference"] for found in scorer.score_all(rollouts)]


def test_values_are_those_of_a_plain_forward_pass(
    served: tuple[ServedPolicy, Policy, Policy], sampled: list[Rollout]
) -> None:
    handle, policy, initial = served
    encode = policy.processor.tokenizer.encode
    expected = []
    for rollout in sampled:
        asked, mode = rollout.request.prompt, rollout.request.mode
        target = encode(asked.gold)
        before, tag, _ = rollout.response.text.partition("</think>")
        if mode == "short":
            values = plain_probabilities(policy, asked, mode, [], target)
            expected.append(sum(values) / len(values))
        elif not tag:
            expected.append(0.0)
        else:
            blanks = "\n\n" if "</think>\n\n" in rollout.response.text else ""
            prefix = encode(f"{before}</think>{blanks}")
            values = plain_probabilities(policy, asked, mode, prefix, target)
            base = plain_probabilities(initial, asked, "short", [], target)
            expected.append(max(0.0, sum(values) / len(values) - sum(base) / len(base)))
    found = values_of(handle, sampled)
    assert found == pytest.approx(expected, abs=1e-6)
    assert any(v > 0 for v, r in zip(found, sampled, strict=True) if r.request.mode == "long")


def test_company_and_order_change_nothing(served: tuple[ServedPolicy, Policy, Policy], sampled: list[Rollout]) -> None:
    handle, policy, _ = served
    whole = values_of(handle, sampled)
    groups = [sampled[:3], sampled[3:7], sampled[7:11], sampled[11:]]
    assert [value for group in groups for value in values_of(handle, group)] == pytest.approx(whole, abs=1e-6)
    one_by_one = [values_of(handle, [rollout])[0] for rollout in sampled]
    assert one_by_one == pytest.approx(whole, abs=1e-6)
    reordered = values_of(handle, [r for group in groups[::-1] for r in group[::-1]])
    assert reordered[::-1] == pytest.approx(whole, abs=1e-6)
    queries = [
        AnswerQuery(prompt=r.request.prompt, mode=r.request.mode, prefix_ids=r.generation.ids[:-1], target_ids=(16, 17))
        for r in sampled
    ]
    together = answer_logprobs(policy, queries, 10_000)
    for limit in (0, 200):
        for a, b in zip(answer_logprobs(policy, queries, limit), together, strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_what_does_not_fit_the_context_is_named(served: tuple[ServedPolicy, Policy, Policy]) -> None:
    _, policy, _ = served
    query = AnswerQuery(prompt=prompt(), mode="long", prefix_ids=(16,) * policy.context_length, target_ids=(17,))
    with pytest.raises(DataError, match=r"more than the model's context of 1024; lower modes.kinds.long"):
        answer_logprobs(policy, [query], 100)


# --- in runs ---------------------------------------------------------------------------------------------------------


TASKS = ("read", "sum")
# Few prompts, so that they come again and their baselines with them; a filter that begins at once. Weights are random,
# and thoughts may be so long that some of them close by chance.
REPEATED = [
    *BARE,
    *(f"data.sources.{task}.args={{task: {task}, min_digits: 1, max_digits: 1, num_prompts: 2}}" for task in TASKS),
    PART,
    "rewards.accuracy={target: 'rewards.text_exact:exact', runs_in: inline}",
    "modes.kinds.long.max_new_tokens=160",
    "warmup=null",
    "admission.std_filter={ema_from_step: 1, filter_from_step: 2, beta: 1.0}",
    "evaluation.after=true",
    "evaluation.prompts_per_mode=2",
    "run.steps=3",
]


@pytest.mark.slow
def test_an_interrupted_run_with_likelihood_and_admission_goes_on_exactly(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert hybrid_rl.run(small_config(*REPEATED, f"run.dir={whole}"))["status"] == "completed"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=2)
        with pytest.raises(Interrupted):
            hybrid_rl.run(small_config(*REPEATED))
    assert RunFolder(folder).last_checkpoint().admission["usual_std"]["long"]["steps"] == 2
    assert resume(folder)["status"] == "completed"
    assert_same_run(folder, whole, steps=3)
    state = [RunFolder(f).last_checkpoint().admission for f in (folder, whole)]
    assert state[0] == state[1]

    found = metrics(whole)
    for mode in ("short", "long"):
        assert any(row[f"part/reference/{mode}"] > 0 for row in found)
        assert found[0][f"dropped/low_std/{mode}"] == 0
    dropped = sum(row[f"dropped/low_std/{mode}"] for row in found for mode in ("short", "long"))
    left_out = [row for step in range(1, 4) for row in rows(whole, step) if row["dropped"]]
    assert dropped > 0 and len(left_out) == 4 * dropped
    assert {row["advantage"] for row in left_out} == {0.0} and {row["dropped"] for row in left_out} == {"low_std"}

    # Without a thought the policy is asked the same of every response; one that opens a thought has no answer.
    for _, members in groupby(rows(whole, 1), key=lambda row: row["group"]):
        group = [row for row in members if row["mode"] == "short"]
        assert len({row["parts"]["reference"] for row in group if row["answer"] is not None}) <= 1
        assert {row["parts"]["reference"] for row in group if row["answer"] is None} <= {0.0}

    assert evaluate_saved(open_saved(folder), None) == summary(folder)["eval"]["after"]


def test_an_empty_reference_is_found_before_a_run(small_config: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "blank.py").write_text(
        "from hybrid_rl.records import Message, Prompt\n"
        "class Blank:\n"
        "    def __init__(self, name, split, seed): self.name = name\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, index):\n"
        "        question = (Message(role='user', text='?'),)\n"
        "        return Prompt(id=f'b{index}', source=self.name, task='read', messages=question, gold=' ')\n"
    )
    source = f"data.sources={{blank: {{target: '{tmp_path}/blank.py:Blank'}}}}"
    with pytest.raises(DataError, match="prompt b0 of source blank has an empty reference answer"):
        hybrid_rl.run(small_config(PART, source))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ray_and_local_give_the_same_values(small_config: Callable[..., Config], tmp_path: Path) -> None:
    """Two workers of each kind call each other; values agree, and as long as they do the runs are the same."""
    folders = [tmp_path / name for name in ("local", "ray")]
    workers = ["cluster.rollout_workers=2", "cluster.reward_workers=2", "run.steps=2"]
    for folder in folders:
        hybrid_rl.run(small_config(*REPEATED, *workers, f"cluster.executor={folder.name}", f"run.dir={folder}"))
    assert_same_run(folders[0], folders[1], steps=2)
