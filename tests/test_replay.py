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


def test_a_token_that_chooses_the_mode_has_the_weight_that_its_scheme_gives_it(tmp_path: Path) -> None:
    """Thinkless with a huge alpha: the share of a mode is that of the advantages of its responses, of any length."""
    from conftest import DEFAULT_CONFIG, SMALL

    (tmp_path / "mine.py").write_text("def length(text): return min(1.0, len(text) / 200)\n")
    kinds = (
        "modes={kinds: {short: {share: 0, max_new_tokens: 12, mode_token: '</think>'}, "
        "long: {share: 0, max_new_tokens: 40, mode_token: '<think>'}, brief: {share: 0.5, max_new_tokens: 12}, "
        "free: {share: 0.5, max_new_tokens: 40}}}"
    )
    folder = tmp_path / "run"
    overrides = [
        *SMALL, f"run.dir={folder}", f"search=[{tmp_path}]", "rewards={accuracy: {target: 'mine.py:length'}}",
        "warmup=null", kinds, "train.baseline=thinkless", "train.baseline_args={alpha: 1.0e9}", "run.steps=1",
        "checkpoints.keep_best=null",
    ]  # fmt: skip
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, overrides))
    rows = [json.loads(line) for line in (folder / "rollouts" / "step_000001.jsonl").read_text().splitlines()]

    def size(row: dict[str, Any]) -> float:
        return abs(row["advantage"][0] if isinstance(row["advantage"], list) else row["advantage"])

    total = sum(map(size, rows))
    assert total > 0
    for found in replay(RunFolder.existing(folder)):
        share = sum(size(row) for row in rows if row["mode"] == found.mode) / total
        assert found.recorded.gradient_share == pytest.approx(share, abs=1e-6)
        assert found.largest_difference == 0.0


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
