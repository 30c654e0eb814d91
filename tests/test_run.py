"""Whole runs, small: what they write down is true, does not depend on who computes it, and survives an interruption."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import DEFAULT_CONFIG, SMALL
from PIL import Image

import hybrid_rl
from hybrid_rl.config import Config
from hybrid_rl.errors import Interrupted, RewardError, RunFolderError
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.saved import evaluate_saved, open_saved
from hybrid_rl.stages.cache import cache_folder
from hybrid_rl.train import resume
from hybrid_rl.workers.actor import ActorWorker

BARE = [
    "evaluation.before=false",
    "evaluation.after=false",
    "checkpoints.every_steps=100",
    "checkpoints.keep_best=null",
]
"""Nothing but the steps."""
DOCUMENTED = {
    "step",
    "prompt_id",
    "group",
    "mode",
    "task",
    "prompt",
    "text",
    "ids",
    "gold",
    "images",
    "parts",
    "reward",
    "advantage",
    "outcome",
    "finish",
    "policy_versions",
}
WEIGHTS = {name: part.weight for name, part in hybrid_rl.load_config(DEFAULT_CONFIG).rewards.items()}


def easy() -> list[str]:
    """One digit to read, and a warm-up long enough that some answers are right and some are wrong."""
    found = ["warmup.steps=120", "warmup.batch_size=16"]
    for task in ("read", "sum"):
        for stage in ("data", "warmup"):
            found.append(f"{stage}.sources.{task}.args={{task: {task}, min_digits: 1, max_digits: 1}}")
    return found


def rows(folder: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts" / f"step_{step:06d}.jsonl").read_text().splitlines()]


TIMES = re.compile(
    r"^wall_s/|^tokens_per_s$|^scoring_hidden_s$|^(?:forwarded_per_s|peak_share|bandwidth_share)/|(?:^|/)part_ms(?:_max)?/"
)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """All metrics but those that measure time."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not TIMES.search(k)} for row in found]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_same_run(a: Path, b: Path, steps: int, *, weights: bool = True) -> None:
    assert metrics(a) == metrics(b)
    assert [row["step"] for row in metrics(a)] == list(range(1, steps + 1))
    for step in range(1, steps + 1):
        name = f"rollouts/step_{step:06d}.jsonl"
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert summary(a)["eval"] == summary(b)["eval"]
    for file in ("model.safetensors", "optimizer.safetensors") if weights else ():
        name = f"checkpoints/step_{steps:06d}/{file}"
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def interrupt_after(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, calls: int) -> None:
    """A real Ctrl-C in this process, right after a method was called so many times."""
    original, count = getattr(owner, method), Counter[str]()

    def wrapped(self: Any, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        count["calls"] += 1
        if count["calls"] == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(owner, method, wrapped)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A completed run of four steps; 8 prompts x 4 responses."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    overrides = [*SMALL, *easy(), f"run.dir={folder}", "run.steps=4", "train.prompts_per_step=8"]
    with pytest.MonkeyPatch.context() as patch:
        # A cache of its own: another test may have made this warm-up already.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("own_cache")))
        result = hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, [*overrides, "checkpoints.keep_last=1"]))
    assert result == summary(folder)
    yield folder


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_the_folder_of_a_run_holds_what_is_promised(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "config.yaml",
        "metrics.jsonl",
        "rollouts",
        "images",
        "checkpoints",
        "report.html",
        "summary.json",
    }
    assert [row["step"] for row in metrics(finished)] == [1, 2, 3, 4]
    expected = [f"step_00000{step}.jsonl" for step in range(1, 5)]
    assert sorted(path.name for path in (finished / "rollouts").iterdir()) == expected
    assert not list(finished.rglob("*.part")) and not list(finished.rglob(".part-*")), "nothing half-written is left"


def test_the_config_in_the_folder_is_the_one_that_ran(finished: Path) -> None:
    config = hybrid_rl.load_config(finished / "config.yaml")
    assert (config.run.steps, config.train.prompts_per_step, config.name) == (4, 8, "grpo_mixed")


def test_the_summary_has_the_documented_shape(finished: Path) -> None:
    found = summary(finished)
    assert (found["status"], found["steps"], found["seed"]) == ("completed", 4, 0)
    assert found["policy"]["parameters"] > 100_000
    assert all(seconds >= 0 for seconds in found["wall_s"].values())
    assert {"generate", "score", "update", "warm_up"} <= set(found["wall_s"])
    assert set(found["eval"]) == {"before", "after"}
    for when in ("before", "after"):
        assert set(found["eval"][when]) == {"short", "long"}
        for figures in found["eval"][when].values():
            assert {"accuracy", "accuracy_when_well_formed", "mean_tokens", "n", "leak_rate", "tasks"} <= set(figures)
            assert figures["n"] == 8
            assert set(figures["tasks"]) == {"read", "sum"}
            assert sum(task["n"] for task in figures["tasks"].values()) == 8
            assert all({"accuracy", "mean_tokens", "n"} <= set(task) for task in figures["tasks"].values())
    assert set(found["tokens"]) == {"short", "long"}


def test_every_sample_is_an_object_with_the_documented_keys(finished: Path) -> None:
    for step in range(1, 5):
        found = rows(finished, step)
        assert len(found) == 8 * 4
        for row in found:
            assert set(row) >= DOCUMENTED
            assert row["step"] == step
            assert row["policy_versions"] == [step - 1, step - 1]
            assert row["outcome"] == "ok" and row["finish"] in ("stop", "length")
            assert len(row["ids"]) <= {"short": 12, "long": 64}[row["mode"]]
            assert set(row["parts"]) == set(WEIGHTS)


def test_images_of_samples_are_kept(finished: Path) -> None:
    for row in rows(finished, 1):
        assert len(row["images"]) == 1
        with Image.open(finished / row["images"][0]) as image:
            image.load()


def test_token_totals_add_up(finished: Path) -> None:
    rollout: Counter[str] = Counter()
    for step in range(1, 5):
        for row in rows(finished, step):
            rollout[row["mode"]] += len(row["ids"])
    assert summary(finished)["tokens"] == {
        mode: {"rollout": rollout[mode], "update": rollout[mode]} for mode in ("short", "long")
    }


def test_accuracy_can_be_recomputed_from_text_and_gold(finished: Path) -> None:
    seen: Counter[float] = Counter()
    for step in range(1, 5):
        for row in rows(finished, step):
            _, tag, answer = row["text"].rpartition("</think>")
            # A response in long mode that never closed its thought has no answer.
            expected = float(answer.strip() == row["gold"] and (bool(tag) or row["mode"] == "short"))
            assert row["parts"]["accuracy"] == expected, row["text"]
            seen[expected] += 1
    assert seen[0.0] and seen[1.0], "the test needs right and wrong answers"


def test_reward_is_the_weighted_sum_of_its_parts(finished: Path) -> None:
    for row in rows(finished, 2):
        assert row["reward"] == math.fsum(WEIGHTS[name] * value for name, value in row["parts"].items())


def test_advantages_can_be_recomputed_by_group(finished: Path) -> None:
    informative = 0
    for step in range(1, 5):
        for _, members in groupby(rows(finished, step), key=lambda row: row["group"]):
            group = list(members)
            assert len(group) == 4
            assert len({(row["prompt_id"], row["mode"]) for row in group}) == 1
            rewards = np.array([row["reward"] for row in group])
            expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            if np.ptp(rewards) == 0:
                expected = np.zeros(4)
            else:
                informative += 1
            np.testing.assert_allclose([row["advantage"] for row in group], expected, atol=1e-9)
    assert informative


def test_modes_and_tasks_are_stratified_exactly(finished: Path) -> None:
    for step in range(1, 5):
        counts = Counter((row["mode"], row["task"]) for row in rows(finished, step))
        assert counts == {(mode, task): 8 for mode in ("short", "long") for task in ("read", "sum")}


def test_metrics_agree_with_the_samples(finished: Path) -> None:
    for found, step in zip(metrics(finished), range(1, 5), strict=True):
        for mode in ("short", "long"):
            chosen = [row for row in rows(finished, step) if row["mode"] == mode]
            assert found[f"prompts/{mode}"] == len(chosen) / 4
            assert found[f"reward/{mode}"] == pytest.approx(np.mean([row["reward"] for row in chosen]))
            assert found[f"accuracy/{mode}"] == pytest.approx(np.mean([row["parts"]["accuracy"] for row in chosen]))
            assert found[f"tokens/{mode}"] == pytest.approx(np.mean([len(row["ids"]) for row in chosen]))
            assert found[f"kl/{mode}"] >= 0
        assert found["ratio_deviation"] < 1e-3


def test_the_newest_and_the_best_checkpoint_are_kept(finished: Path) -> None:
    rewards = [(row["reward/long"], row["step"]) for row in metrics(finished)]
    assert checkpoints(finished) == sorted({"step_000004", f"step_{max(rewards)[1]:06d}"})


def test_evaluating_the_finished_run_gives_what_the_summary_says(finished: Path) -> None:
    assert evaluate_saved(open_saved(finished), None) == summary(finished)["eval"]["after"]
    of_checkpoint = evaluate_saved(open_saved(finished / "checkpoints" / "step_000004"), 3)
    assert [figures["n"] for figures in of_checkpoint.values()] == [3, 3]


def test_a_run_can_start_from_the_checkpoint_of_another(
    finished: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    path = finished / "checkpoints" / "step_000004"
    overrides = [*easy(), f"model.path={path}", "model.args={}", "run.steps=1", "evaluation.after=false"]
    found = hybrid_rl.run(small_config(*overrides))
    assert found["status"] == "completed"
    assert "warm_up" not in found["wall_s"]
    assert found["eval"]["before"] == summary(finished)["eval"]["after"]
    assert rows(tmp_path / "run", 1)[0]["policy_versions"] == [0, 0]


def test_a_completed_run_is_not_resumed(finished: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="complete"):
        resume(finished)
    assert (finished / "metrics.jsonl").read_bytes() == before


# --- resuming --------------------------------------------------------------------------------------------------------

RESUMED = ["run.steps=4", "warmup.steps=20", "checkpoints.every_steps=2", "train.optimizer.learning_rate=1.0e-3"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, [*SMALL, *RESUMED, f"run.dir={folder}"]))
    return folder


def test_a_run_that_was_interrupted_goes_on_exactly(
    uninterrupted: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=1)
        with pytest.raises(Interrupted, match=rf"stopped after step 1; .*--resume {folder}`"):
            hybrid_rl.run(small_config(*RESUMED))
    assert (summary(folder)["status"], summary(folder)["steps"]) == ("interrupted", 1)
    assert checkpoints(folder)[-1] == "step_000001"
    assert resume(folder)["status"] == "completed"
    assert_same_run(folder, uninterrupted, steps=4)


def test_nobody_else_resumes_a_run_while_it_is_trained(
    small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, refusals = Recorder.step, []

    def meanwhile(self: Recorder, *arguments: Any) -> None:
        step(self, *arguments)
        with pytest.raises(RunFolderError, match="is being trained by another process") as found:
            resume(tmp_path / "run")
        refusals.append(found)

    monkeypatch.setattr(Recorder, "step", meanwhile)
    interrupt_after(monkeypatch, Recorder, "step", calls=1)
    with pytest.raises(Interrupted):
        hybrid_rl.run(small_config("warmup=null"))
    assert resume(tmp_path / "run")["status"] == "completed"  # and it refuses others as well
    assert len(refusals) == 3 and len(metrics(tmp_path / "run")) == 3


def test_what_a_crash_left_behind_the_checkpoint_is_dropped(
    uninterrupted: Path, small_config: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    original = ActorWorker.update

    def out_of_memory_at_step_4(self: ActorWorker, *args: Any) -> Any:
        if self._version == 3:
            raise RuntimeError("out of memory")
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActorWorker, "update", out_of_memory_at_step_4)
        with pytest.raises(RuntimeError, match="out of memory"):
            hybrid_rl.run(small_config(*RESUMED))
    assert summary(folder)["status"] == "failed"
    assert checkpoints(folder)[-1] == "step_000002", "nobody knows the weights after a crash; they are not saved"
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "versi')  # a line that the crash cut
    resume(folder)
    assert_same_run(folder, uninterrupted, steps=4)


def test_an_interrupted_warm_up_goes_on_exactly(
    uninterrupted: Path, small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, ActorWorker, "warm_up", calls=1)
        with pytest.raises(Interrupted, match=rf"stopped after warm-up step 10; .*--resume {folder}`"):
            hybrid_rl.run(small_config(*RESUMED))
    assert checkpoints(folder) == ["warmup_000010"]
    assert not (tmp_path / "cache").exists(), "half a warm-up is no warm-up"
    assert resume(folder)["status"] == "completed"
    assert_same_run(folder, uninterrupted, steps=4)


def test_an_interruption_just_after_resuming_keeps_the_best_checkpoint(
    small_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    config = small_config(*BARE, "run.steps=4", "checkpoints.keep_best=step", "checkpoints.best_is=min")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=1)
        with pytest.raises(Interrupted):
            hybrid_rl.run(config)
    for _ in range(2):  # stopped again before a further step was done
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(patch, Recorder, "__enter__", calls=1)
            with pytest.raises(Interrupted, match="stopped after step 1;"):
                resume(folder)
    state = json.loads((folder / "checkpoints" / "step_000001" / "state.json").read_text())
    assert state["metric"] == 1


# --- executors -------------------------------------------------------------------------------------------------------


def test_ray_and_local_runs_are_the_same_and_resolve_the_users_plugins(own_project: Path, tmp_path: Path) -> None:
    folders = [tmp_path / executor for executor in ("local", "ray")]
    for folder in folders:
        overrides = [*PROJECT, f"cluster.executor={folder.name}", f"run.dir={folder}"]
        assert hybrid_rl.run(hybrid_rl.load_config(own_project, overrides))["status"] == "completed"
    assert_same_run(folders[0], folders[1], steps=2)
    for row in rows(folders[1], 2):
        assert set(row["parts"]) == {"accuracy", "brevity", "moved"}
        assert row["parts"]["brevity"] == -len(row["ids"]) / 100
    # The reference and the rollout workers are asked: first they agree, and after an update they do not.
    moved = [[row["parts"]["moved"] for row in rows(folders[1], step)] for step in (1, 2)]
    assert max(map(abs, moved[0])) < 1e-6 < max(map(abs, moved[1]))
    assert {row["task"] for row in rows(folders[1], 2)} == {"pictures", "count"}


# --- the user's own parts --------------------------------------------------------------------------------------------

PROJECT = [*(o for o in SMALL if not o.startswith("warmup.")), *BARE, "run.steps=2"]


@pytest.fixture
def own_project(tmp_path: Path) -> Path:
    """A folder as a user would have it: a config, a reward, a prompt source, and data with pictures."""
    folder = tmp_path / "project"
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for number in range(12):
        Image.new("RGB", (40, 40), (20 * number,) * 3).save(folder / "pictures" / f"{number}.png")
        row = {"prompt": "How bright?", "images": [f"pictures/{number}.png"], "gold": str(number), "level": number}
        lines.append(json.dumps(row) + "\n")
    (folder / "pictures.jsonl").write_text("".join(lines))
    (folder / "mine.py").write_text(
        "from hybrid_rl.records import AnswerQuery, Message, Prompt\n"
        "class Brevity:\n"
        "    def __init__(self, scale): self.scale = scale\n"
        "    def __call__(self, ids): return -len(ids) / self.scale\n"
        "def close(answer, gold, level=0): return float(answer.strip() == gold)\n"
        "class Moved:\n"
        "    per = 'batch'\n"
        "    def __call__(self, prompt, mode, gold, policy):\n"
        "        chat = policy.format\n"
        "        asked = [AnswerQuery(prompt=p, mode=m, prefix_ids=chat.no_thought_ids(m),\n"
        "                             target_ids=chat.answer_ids(p, m, g)) for p, m, g in zip(prompt, mode, gold)]\n"
        "        now, then = policy.answer_logprobs(asked), policy.answer_logprobs(asked, initial=True)\n"
        "        return [sum(a) - sum(b) for a, b in zip(now, then)]\n"
        "class Counting:\n"
        "    def __init__(self, name, split, seed, first=0):\n"
        "        self.name, self.first = name, first + (1000 if split == 'eval' else 0)\n"
        "    def __len__(self): return 100\n"
        "    def __getitem__(self, index):\n"
        "        number = self.first + index\n"
        "        question = (Message(role='user', text=f'What comes after {number}?'),)\n"
        "        gold = str(number + 1)\n"
        "        return Prompt(id=str(number), source=self.name, task='count', messages=question, gold=gold)\n"
    )
    config = {
        "data": {
            "sources": {
                "pictures": {"target": "hybrid_rl.data.files:FileSource", "args": {"path": "pictures.jsonl"}},
                "counting": {"target": "mine.py:Counting", "args": {"first": 7}},
            }
        },
        "modes": {
            "long_ratio": 0.5,
            "kinds": {
                "short": {"template_args": {"enable_thinking": False}, "max_new_tokens": 8},
                "long": {"template_args": {"enable_thinking": True}, "max_new_tokens": 12},
            },
        },
        "rewards": {
            "accuracy": {"target": "mine.py:close"},
            "brevity": {"target": "mine.py:Brevity", "args": {"scale": 100}},
            "moved": {"target": "mine.py:Moved"},
        },
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def test_a_reward_that_fails_stops_the_run_with_a_checkpoint(own_project: Path, tmp_path: Path) -> None:
    marker = tmp_path / "broken"
    (own_project.parent / "flaky.py").write_text(
        "import os\n"
        "def flaky(answer, gold):\n"
        f"    if os.path.exists({str(marker)!r}): raise KeyError('grader')\n"
        "    return 0.0\n"
    )
    folder = tmp_path / "run"
    overrides = [*PROJECT, "run.steps=3", "rewards.brevity={target: 'flaky.py:flaky'}", f"run.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        original = Recorder.step

        def step(self: Recorder, number: int, *args: Any) -> None:
            original(self, number, *args)
            if number == 2:
                marker.touch()

        patch.setattr(Recorder, "step", step)
        with pytest.raises(RewardError, match=r"rewards.brevity \('flaky.py:flaky'\) .* KeyError: 'grader'"):
            hybrid_rl.run(hybrid_rl.load_config(own_project, overrides))
    assert summary(folder)["status"] == "failed"
    assert checkpoints(folder)[-1] == "step_000002"
    marker.unlink()  # the user mends it and goes on
    assert resume(folder)["status"] == "completed"


def test_three_kinds_of_thinking(tmp_path: Path) -> None:
    values = yaml.safe_load(DEFAULT_CONFIG.read_text())
    values["modes"] = {
        "kinds": {
            "brief": {"share": 0.5, "template_args": {"enable_thinking": False}, "max_new_tokens": 8},
            "think": {"share": 0.25, "template_args": {"enable_thinking": True}, "max_new_tokens": 16},
            "ponder": {"share": 0.25, "template_args": {"enable_thinking": True}, "max_new_tokens": 24},
        }
    }
    values["checkpoints"] = {"keep_best": "reward/ponder"}
    for source in values["warmup"]["sources"].values():
        if "modes" in source:
            source["modes"] = ["brief"] if source["modes"] == ["short"] else ["think", "ponder"]
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump(values))
    folder = tmp_path / "run"
    overrides = [*SMALL, "run.steps=2", "train.prompts_per_step=8", f"run.dir={folder}"]
    found = hybrid_rl.run(hybrid_rl.load_config(path, overrides))
    prompts = {"brief": 4, "think": 2, "ponder": 2}
    for row in metrics(folder):
        assert {mode: row[f"prompts/{mode}"] for mode in prompts} == prompts
        assert all(f"{name}/{mode}" in row for name in ("reward", "tokens", "kl") for mode in prompts)
    assert set(found["eval"]["after"]) == set(found["tokens"]) == set(prompts)
    assert max(len(row["ids"]) for row in rows(folder, 1) if row["mode"] == "ponder") > 16


# --- the cache of warm-ups -------------------------------------------------------------------------------------------


def test_a_warm_up_is_taken_from_the_cache_when_nothing_that_matters_changed(
    small_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = hybrid_rl.run(small_config(*BARE, "run.steps=1"))
    assert "warm_up" in first["wall_s"]
    assert "warm-up of 10 supervised steps" in capsys.readouterr().out
    second = hybrid_rl.run(small_config(*BARE, "run.steps=2", f"run.dir={tmp_path / 'again'}"))
    assert "warm_up" not in second["wall_s"]
    assert "warmed up earlier" in capsys.readouterr().out
    name = "rollouts/step_000001.jsonl"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert len(list((tmp_path / "cache" / "hybrid-rl" / "warmup").iterdir())) == 1


@pytest.mark.parametrize(
    ("override", "hit"),
    [
        ("run.steps=77", True),
        ("modes.long_ratio=0.25", True),
        ("train.optimizer.learning_rate=0.01", True),
        ("cluster.executor=ray", True),
        ("warmup.steps=11", False),
        ("run.seed=1", False),
        ("warmup.sources.read.args.wrong_digit_rate=0.7", False),
        ("warmup.optimizer.learning_rate=0.01", False),
        ("model.args.query_num=8", False),
        ("modes.kinds.long.prefill='So '", False),
        ("modes.kinds.long.mode_token='So '", False),
        ("modes.kinds.long.truncation=mask", True),
    ],
)
def test_what_matters_to_a_warm_up(small_config: Callable[..., Config], override: str, hit: bool) -> None:
    assert (cache_folder(small_config()) == cache_folder(small_config(override))) is hit


# --- settings of the update ------------------------------------------------------------------------------------------


def test_mini_batches_are_optimizer_steps_of_their_own(small_config: Callable[..., Config], tmp_path: Path) -> None:
    fast = [*BARE, "run.steps=2", "train.optimizer.learning_rate=1.0e-3"]
    hybrid_rl.run(small_config(*fast))
    hybrid_rl.run(small_config(*fast, "train.mini_batches=2", f"run.dir={tmp_path / 'two'}"))
    one, two = metrics(tmp_path / "run"), metrics(tmp_path / "two")
    assert rows(tmp_path / "run", 1) == rows(tmp_path / "two", 1)
    assert [row["version"] for row in two] == [1, 2]
    assert all(row["ratio_deviation"] < 1e-3 for row in two), "the first mini-batch is on-policy"
    assert one[1]["reward/long"] != two[1]["reward/long"] or one[1]["loss"] != two[1]["loss"]


def test_the_reference_is_asked_every_so_many_steps(small_config: Callable[..., Config], tmp_path: Path) -> None:
    fast = [*BARE, "run.steps=4", "train.reference_every_steps=2", "train.optimizer.learning_rate=3.0e-3"]
    hybrid_rl.run(small_config(*fast))
    found = metrics(tmp_path / "run")
    assert [("kl/short" in row, "kl/long" in row) for row in found] == [(False, False), (True, True)] * 2
    assert found[3]["kl/short"] > 1e-6, "after some steps the policy is no longer the reference"


def test_a_kl_term_asks_the_reference_in_every_step_and_holds_the_policy_back(
    small_config: Callable[..., Config], tmp_path: Path
) -> None:
    fast = [*BARE, "run.steps=4", "train.optimizer.learning_rate=3.0e-3"]
    hybrid_rl.run(small_config(*fast))
    tied = ["train.kl_coefficient=50.0", "train.reference_every_steps=2", f"run.dir={tmp_path / 'tied'}"]
    hybrid_rl.run(small_config(*fast, *tied))
    free, held = metrics(tmp_path / "run"), metrics(tmp_path / "tied")
    assert all("kl/short" in row for row in held)
    assert held[0]["kl/short"] == pytest.approx(0, abs=1e-6), "the reference is the policy before the first step"
    assert held[3]["kl/short"] < free[3]["kl/short"]


def test_only_the_newest_checkpoints_and_the_best_are_kept(small_config: Callable[..., Config], tmp_path: Path) -> None:
    overrides = ["checkpoints.every_steps=1", "checkpoints.keep_last=2", "checkpoints.best_is=min"]
    hybrid_rl.run(small_config(*BARE, *overrides, "run.steps=5", "checkpoints.keep_best=step"))
    assert checkpoints(tmp_path / "run") == ["step_000001", "step_000004", "step_000005"]


def test_evaluations_on_the_way_are_written_down(small_config: Callable[..., Config], tmp_path: Path) -> None:
    hybrid_rl.run(small_config(*BARE, "run.steps=4", "evaluation.every_steps=2"))
    found = [json.loads(line) for line in (tmp_path / "run" / "eval.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found] == [2, 4]
    assert all(row["eval"]["long"]["n"] == 8 for row in found)
