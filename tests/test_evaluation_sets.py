"""Evaluation beyond the plain one: named sets, several samples, blind, conditions that end a run."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_run import interrupt_after

import hybrid_rl
from hybrid_rl.cli.main import main
from hybrid_rl.config import Config
from hybrid_rl.config.condition import Condition
from hybrid_rl.config.evaluation import EvaluationSetConfig
from hybrid_rl.errors import ConfigError, Interrupted, UserError
from hybrid_rl.images import blanked, inline_png, open_image
from hybrid_rl.insight.blind_view import blind_rows, compare_blind
from hybrid_rl.insight.evaluation_metrics import evaluation_metric_names, evaluation_metrics
from hybrid_rl.insight.evaluation_sets import evaluate_set, modes_of_set, pass_at_k
from hybrid_rl.preflight import prepare
from hybrid_rl.records import Message, Prompt, Request, Rollout, Score
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.train import resume

# --- pass@k ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_right_one(numbers: tuple[int, int, int]) -> None:
    n, right, k = numbers
    chosen = list(itertools.combinations([i < right for i in range(n)], k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, chosen)) / len(chosen))


def test_pass_at_k_equals_the_published_product_for_many_samples() -> None:
    """1 - prod_{i=n-c+1..n} (1 - k / i), as the paper computes it (figure 3)."""
    n, c, k = 200, 13, 10
    published = 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
    assert pass_at_k(n, c, k) == pytest.approx(published)
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)


# --- a set -----------------------------------------------------------------------------------------------------------


class Scripted:
    """Answers prompt p with as many right ones of n as its id says."""

    def __init__(self, make_rollout: Callable[..., Rollout]) -> None:
        self.make, self.seen = make_rollout, list[Request]()

    def generate(self, requests: Sequence[Request]) -> list[Rollout]:
        self.seen += requests
        return [replace(self.make(), request=r) for r in requests]

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        right = [float(r.request.index < int(r.request.prompt.id)) for r in rollouts]
        return [Score(value=value, parts={"accuracy": value}) for value in right]


def test_a_set_is_answered_in_its_modes_with_its_sampling(
    make_rollout: Callable[..., Rollout], small_config: Callable[..., Config]
) -> None:
    chosen = EvaluationSetConfig(
        modes=["long"], samples_per_prompt=4, pass_at=[1, 2, 4], temperature=0.6, max_new_tokens=9, max_think_tokens=3
    )
    config = small_config()
    prompts = [
        Prompt(id=str(right), source="s", task="t", messages=(Message(role="user", text="?"),), gold="")
        for right in (0, 1, 4)
    ]
    workers = Scripted(make_rollout)
    modes = modes_of_set(chosen, config.modes, ["long"])
    found = evaluate_set(prompts, chosen, modes, workers, workers, seed=0)
    assert list(found) == ["long"]
    figures = found["long"]
    assert figures["accuracy"] == pytest.approx(5 / 12)
    # Of four samples with one right: 1/4 of one, 1/2 of two, all of four.
    assert figures["pass"] == pytest.approx({"1": 5 / 12, "2": (0 + 0.5 + 1) / 3, "4": 2 / 3})
    assert (figures["n"], figures["prompts"], figures["samples"]) == (12, 3, 4)
    assert {(r.temperature, r.max_new_tokens, r.max_think_tokens) for r in workers.seen} == {(0.6, 9, 3)}
    assert len({r.seed for r in workers.seen}) == 12
    # Without a temperature of its own a set samples as its modes do; a mode without thought has no thinking budget.
    plain = modes_of_set(EvaluationSetConfig(max_think_tokens=3), config.modes, ["long"])
    assert plain.kinds["short"] == config.modes.kinds["short"]
    assert plain.kinds["long"].max_think_tokens == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.sets.hard.pass_at=[8]", r"pass@8 needs as many samples_per_prompt, and there are 1"),
        ("evaluation.sets.hard={temperature: 0, samples_per_prompt: 4}", r"at temperature 0 all 4"),
        ("evaluation.sets.hard.modes=[medium]", r"evaluation.sets.hard.modes: there is no mode 'medium'"),
        ("evaluation.sets.a/b={}", r"cannot be a name of a set"),
        ("evaluation.sets.hard.sample=2", r"there is no key 'evaluation.sets.hard.sample'"),
        ("run.stop_when=soon", r"'soon' is no condition"),
        ("run.stop_when=reward/long >= high", r"is no condition"),
        ("run.stop_when=reward/long = 1", r"is no condition"),
        ("alarms.truncation.action=shout", r"alarms.truncation.action"),
        ("alarms.truncations={}", r"did you mean 'truncation'"),
    ],
)
def test_a_config_that_cannot_be_meant(small_config: Callable[..., Config], override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        small_config(override)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["run.stop_when=acuracy/long >= 0.9"], r"no metric 'acuracy/long'; did you mean 'accuracy/long'"),
        (["run.stop_when=eval/accuracy/long >= 0.9"], r"is not measured in training; set evaluation.every_steps"),
        (["run.stop_when=eval/acc/long > 1", "evaluation.every_steps=2"], r"did you mean 'eval/accuracy/long'"),
        (["evaluation.sets.hard.max_new_tokens=3"], r"sets.hard: in mode long a response may have 3 tokens"),
        (["evaluation.sets.hard.max_new_tokens=2000"], r"sets.hard: prompt .* more than the model's context"),
    ],
)  # fmt: skip
def test_what_the_run_could_not_do_is_refused_before_it(
    small_config: Callable[..., Config], overrides: list[str], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        prepare(small_config(*overrides))


def test_conditions() -> None:
    condition = Condition.parse(" eval/accuracy/long>=0.5 ")
    assert [condition.met({"eval/accuracy/long": v}) for v in (0.4, 0.5, 0.6)] == [False, True, True]
    assert not condition.met({})
    assert [Condition.parse("kl/long < 0.5").met({"kl/long": v}) for v in (0.4, 0.5)] == [True, False]


# --- blind -----------------------------------------------------------------------------------------------------------


def test_a_blanked_image_has_its_size_and_mean_and_nothing_else() -> None:
    pixels = np.zeros((4, 10, 3), dtype=np.uint8)
    pixels[:, :5] = 200
    image = open_image(blanked(inline_png(Image.fromarray(pixels))))
    assert image.size == (10, 4)
    assert image.getcolors() == [(40, (100, 100, 100))]


def test_sighted_and_blind_stand_side_by_side() -> None:
    def figures(accuracy: float) -> dict[str, Any]:
        split = {"accuracy": accuracy, "mean_tokens": 3.0, "n": 100}
        return {"long": {**split, "leak_rate": 0.0, "well_formed": 1.0, "tasks": {"read": split}, "sources": {}}}

    found = compare_blind(figures(0.75), figures(0.25))
    assert found["difference"] == {"long": {"accuracy": 0.5, "tasks": {"read": 0.5}}}
    _, whole, task = blind_rows(found)
    assert whole[:5] == ["long", "100", "75.0 %", "25.0 %", "+50.0"] and task[0] == "  read"
    metrics = evaluation_metrics(found["sighted"], found["blind"])
    assert metrics["eval/blind_accuracy/long"] == 0.25 and metrics["eval/image_gap/long"] == 0.5


# --- a run with all of it --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import DEFAULT_CONFIG, SMALL

    folder = tmp_path_factory.mktemp("sets") / "run"
    overrides = [
        *SMALL, f"run.dir={folder}", "run.steps=6", "checkpoints.every_steps=100",
        "evaluation.prompts_per_mode=4", "evaluation.every_steps=2",
        "evaluation.blind=true", "modes.kinds.long.max_think_tokens=5", "modes.kinds.long.max_new_tokens=20",
        "evaluation.sets.many={prompts_per_mode: 3, modes: [long], samples_per_prompt: 2, pass_at: [2]}",
        "evaluation.sets.many.every_steps=3",
        "evaluation.sets.greedy={prompts_per_mode: 3, temperature: 0}",
        "run.stop_when=eval_set/many/mean_tokens/long > 0",
    ]  # fmt: skip
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, overrides))
    return folder


def test_a_run_evaluates_its_sets_and_stops_where_it_is_told_to(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    # The condition is on a set that is evaluated every third step.
    assert summary["status"] == "completed" and summary["steps"] == 3
    assert summary["stopped"]["step"] == 3
    assert summary["stopped"]["reason"].startswith("run.stop_when: eval_set/many/mean_tokens/long > 0 (")
    assert (finished / "checkpoints" / "step_000003").is_dir()
    rows = [json.loads(line) for line in (finished / "eval.jsonl").read_text().splitlines()]
    assert [(row["step"], sorted(row)) for row in rows] == [
        (2, ["eval", "eval_blind", "eval_sets", "metrics", "step"]),
        (3, ["eval_sets", "metrics", "step"]),
    ]
    assert list(rows[0]["eval_sets"]) == ["greedy"] and list(rows[1]["eval_sets"]) == ["many"]
    assert set(summary["eval_sets"]) == {"before", "after"}
    many = summary["eval_sets"]["after"]["many"]
    assert list(many) == ["long"] and many["long"]["n"] == 6 and list(many["long"]["pass"]) == ["2"]
    measured = {name for row in rows for name in row["metrics"]}
    config = hybrid_rl.load_config(finished / "config.yaml")
    assert measured <= set(evaluation_metric_names(config, ["read", "sum"]))
    assert {"eval/accuracy/long", "eval/image_gap/short", "eval_set/many/pass@2/long"} <= measured


def test_every_evaluation_keeps_its_single_responses(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    folder = finished / "eval_items"
    kept = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.jsonl")}
    ends = {f"{of}{when}" for of in ("", "blind/", "set_many/", "set_greedy/") for when in ("before", "after")}
    assert kept == ends | {"step_000002", "blind/step_000002", "set_greedy/step_000002", "set_many/step_000003"}
    many = [json.loads(line) for line in (folder / "set_many" / "after.jsonl").read_text().splitlines()]
    assert sorted((row["prompt_id"], row["index"]) for row in many) == sorted(
        (prompt, index) for prompt in {row["prompt_id"] for row in many} for index in (0, 1)
    )
    for of, found in (("blind", summary["eval_blind"]["after"]), ("set_many", summary["eval_sets"]["after"]["many"])):
        rows = [json.loads(line) for line in (folder / of / "after.jsonl").read_text().splitlines()]
        for mode, figures in found.items():
            values = [row["accuracy"] for row in rows if row["mode"] == mode]
            assert sum(values) / len(values) == pytest.approx(figures["accuracy"])


def test_an_evaluation_that_was_cut_off_is_repeated(
    small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        "warmup=null", "run.steps=2", "evaluation.every_steps=1", "evaluation.blind=true", "evaluation.before=false",
        "evaluation.after=false", "run.stop_when=eval/image_gap/long > -2",
    )  # fmt: skip
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, RunFolder, "write_evaluation", calls=1)  # between the sighted and the blind one
        with pytest.raises(Interrupted, match="stopped after step 1;"):
            hybrid_rl.run(config)
    assert not (folder / "eval.jsonl").exists()
    sighted = (folder / "eval_items" / "step_000001.jsonl").read_bytes()
    resume(folder)
    # It is of the same weights with the same seeds, and what was to end the run after it does.
    assert (folder / "eval_items" / "step_000001.jsonl").read_bytes() == sighted
    assert [json.loads(line)["step"] for line in (folder / "eval.jsonl").read_text().splitlines()] == [1]
    assert json.loads((folder / "summary.json").read_text())["stopped"]["step"] == 1


def test_the_thinking_budget_of_a_mode_holds_in_training(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "rollouts" / "step_000001.jsonl").read_text().splitlines()]
    long = [row for row in rows if row["mode"] == "long"]
    forced = [row for row in long if not all(row["sampled"])]
    assert forced, "a policy that was hardly trained does not end its thoughts in five tokens"
    assert all(row["finish"] in ("budget", "length") and row["sampled"].index(False) <= 5 for row in forced)
    assert all(all(row["sampled"]) for row in rows if row["mode"] == "short")
    (metrics, *_) = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert metrics["rollout_tokens/long"] == sum(sum(row["sampled"]) for row in long)
    assert metrics["closed_by_budget/long"] == sum(row["finish"] == "budget" for row in long) / len(long)


def test_the_report_has_a_section_for_each(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    for piece in ('id="sets"', 'id="blind"', "pass@2", "run.stop_when"):
        assert piece in html, piece


def test_eval_measures_budgets_blind_and_sets_of_a_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["hybrid-rl", "eval", str(finished), *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert (exit_.value.code or 0) == code, captured.err
        return captured.err.strip() if code else captured.out

    curve = json.loads(say("--budgets", "0,4", "--n", "4", "--json"))
    assert [point["max_think_tokens"] for point in curve["long"]] == [0, 4, None]
    assert [point["mean_tokens"] > 0 for point in curve["long"]] == [True] * 3 and list(curve) == ["long"]
    assert json.loads((finished / "budgets.json").read_text()) == curve
    with Image.open(finished / "budgets.png") as picture:
        assert picture.format == "PNG"
    assert 'id="budgets"' in (finished / "report.html").read_text()
    blind = json.loads(say("--blind", "--n", "4", "--json"))
    for mode, figures in blind["difference"].items():
        assert figures["accuracy"] == blind["sighted"][mode]["accuracy"] - blind["blind"][mode]["accuracy"]
    assert "mean@2" in say("--set", "many")
    refused = say("--budgets", "0,5000", code=2)
    assert "more than the model's context of 1024" in refused and len(refused.splitlines()) == 1
    assert "write whole numbers" in say("--budgets", "few", code=2)
    assert "give one of" in say("--budgets", "0", "--blind", code=2)
    assert "evaluation.sets has no 'odd'; it has many, greedy" in say("--set", "odd", code=2)
