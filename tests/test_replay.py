"""Recorded responses with other rewards or another estimator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hybrid_rl
from hybrid_rl.cli.main import EXIT_USER_ERROR, main
from hybrid_rl.config import Config
from hybrid_rl.errors import RunFolderError
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.replay import replay

SmallConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of a policy that hardly knows anything, with rewards that differ by the answer's length."""
    from conftest import DEFAULT_CONFIG, SMALL

    folder = tmp_path_factory.mktemp("replay")
    (folder / "mine.py").write_text(
        "def length(text): return len(text) / 50\ndef many(text): return float(text.count('1'))\n"
        "def right(text, gold): return float(gold in text)\n"
    )
    rewards = "rewards={accuracy: {target: 'mine.py:right'}, length: {target: 'mine.py:length', weight: 0.5}}"
    overrides = [*SMALL, f"run.dir={folder / 'run'}", f"search=[{folder}]", rewards, "warmup=null"]
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, overrides))
    return folder / "run"


@pytest.mark.parametrize("rescore", [False, True])
def test_the_runs_own_settings_reproduce_its_advantages_exactly(run: Path, rescore: bool) -> None:
    for mode in replay(RunFolder.existing(run), rescore=rescore):
        assert mode.largest_difference == 0.0
        assert mode.recorded == mode.replayed
        assert mode.correlation == pytest.approx(1.0) and mode.turned == 0
        assert mode.recorded.mean_size > 0


def changed(run: Path, *overrides: str) -> Config:
    return hybrid_rl.load_config(run / "config.yaml", list(overrides))


def test_without_the_division_by_std_advantages_are_the_bare_differences(run: Path) -> None:
    """Dr.GRPO: A = r - mean, so A of GRPO times std + eps; checked on the recorded rewards."""
    rows = [json.loads(line) for f in sorted((run / "rollouts").iterdir()) for line in f.read_text().splitlines()]
    expected: dict[str, list[float]] = {}
    for mode in ("short", "long"):
        sizes = []
        for group in dict.fromkeys(row["group"] for row in rows if row["mode"] == mode):
            members = [row for row in rows if row["group"] == group]
            mean = sum(row["reward"] for row in members) / len(members)
            sizes += [abs(row["reward"] - mean) for row in members for _ in row["ids"]]
        expected[mode] = sizes
    for found in replay(RunFolder.existing(run), changed(run, "train.estimator=dr_grpo")):
        assert found.replayed.mean_size == pytest.approx(sum(expected[found.mode]) / len(expected[found.mode]))
        assert found.replayed.mean_size != pytest.approx(found.recorded.mean_size)
        assert found.turned == 0


def test_the_opposite_reward_turns_every_response(run: Path) -> None:
    weights = ("rewards.accuracy.weight=-1.0", "rewards.length.weight=-0.5")
    for mode in replay(RunFolder.existing(run), changed(run, *weights), rescore=True):
        assert mode.correlation == pytest.approx(-1.0)
        assert mode.replayed.reward == pytest.approx(-(mode.recorded.reward or 0))
        assert mode.replayed.gradient_share == pytest.approx(mode.recorded.gradient_share)


def test_a_heavier_mode_takes_its_share_of_the_gradient(run: Path) -> None:
    heavier = replay(RunFolder.existing(run), changed(run, "modes.kinds.long.loss_weight=3.0"))
    short, long = heavier
    odds = long.recorded.gradient_share / short.recorded.gradient_share
    assert long.replayed.gradient_share / short.replayed.gradient_share == pytest.approx(3 * odds)
    assert short.replayed.gradient_share + long.replayed.gradient_share == pytest.approx(1)


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["hybrid-rl", "replay", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_from_the_command_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.yaml"
    new.write_text("rewards:\n  accuracy: {target: 'mine.py:right'}\n  many: {target: 'mine.py:many'}\n")
    assert cli(monkeypatch, str(run), "--rewards", str(new), "--advantage", "rloo", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [mode["mode"] for mode in found["modes"]] == ["short", "long"]
    assert set(found["modes"][0]["replayed"]["parts"]) == {"accuracy", "many"}
    assert cli(monkeypatch, str(run)) == 0
    assert "share of the gradient" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--advantage", "dr_grop"], "dr_grpo"),
        (["train.estimatr=rloo"], "did you mean 'estimator'"),
        (["--rewards", "nowhere.yaml"], "there is no config file nowhere.yaml"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli(monkeypatch, str(run), *arguments) == EXIT_USER_ERROR
    assert said in capsys.readouterr().err


def test_a_run_without_responses_and_one_with_other_data_are_refused(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    first = copy / "rollouts" / "step_000001.jsonl"
    first.write_text(first.read_text().replace('"gold": "', '"gold": "9'))
    with pytest.raises(RunFolderError, match="does not hold the responses that its config asks for"):
        replay(RunFolder.existing(copy))
    shutil.rmtree(copy / "rollouts")
    with pytest.raises(RunFolderError, match="has no recorded responses"):
        replay(RunFolder.existing(copy))
