"""Dynamic sampling: dropped groups are replaced in their own mode, within a bound, the same after a resume."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_mixture import Numbered, mixture
from test_run import BARE, assert_same_run, interrupt_after, metrics, rows, summary

import hybrid_rl
from hybrid_rl.algorithm.admission import AdmissionState, admit
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.assignment import mode_schedule
from hybrid_rl.algorithm.grouping import make_grouping
from hybrid_rl.algorithm.refill import Vacancy, fill, vacancies
from hybrid_rl.collecting import Collected, collect
from hybrid_rl.config import Config
from hybrid_rl.data.mixture import Mixture
from hybrid_rl.dealing import Dealer
from hybrid_rl.errors import Interrupted
from hybrid_rl.insight.recorder import Recorder
from hybrid_rl.records import Finish, Generation, Prompt, Request, Response, Rollout, Score
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.studies.replay import replay
from hybrid_rl.train import resume
from hybrid_rl.workers.flight import Flight

SIZE = 40


def config_of(*overrides: str) -> Config:
    return hybrid_rl.load_config(DEFAULT_CONFIG, [*SMALL, "admission.dynamic_sampling={}", *overrides])


class Fakes:
    """A run without a model: each group is good or bad, as `is_good` says of its first request."""

    def __init__(self, config: Config, prompts: Mixture, is_good: Callable[[Request], bool]) -> None:
        modes = mode_schedule(config)
        self.config = config
        self.is_good = is_good
        self.asked: list[list[Request]] = []
        self.admission = AdmissionState()
        self.dealer = Dealer(config, prompts, modes)
        self.grouping = make_grouping(config, {"short": "closed", "long": "opened"})
        self.score = self._score
        self.rollouts = SimpleNamespace(launch=self._launch)
        self.rewards: Any = None
        self.ahead = SimpleNamespace(take=lambda step: self._launch(self.dealer.first(step), None))

    def collect(self, step: int) -> Collected:
        found = collect(self, step, _clock)  # type: ignore[arg-type]
        self.admission = found.admission
        return found

    def _launch(self, requests: Sequence[Request], rewards: Any) -> Flight:
        self.asked.append(list(requests))
        generation = Generation(ids=(1, 2), logprobs=(-1.0, -1.0), sampled=(True, True), finish=Finish.STOP)
        response = Response(text="", thought="", answer="1", closed=True, leaked=False)
        made = [Rollout(request=r, generation=generation, response=response, versions=(0, 0)) for r in requests]
        return Flight.landed(made, SimpleNamespace(score=lambda rollouts: self.score(rollouts), finish=None))

    def _score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """A bad group has equal rewards; in a good one they alternate."""
        return [Score(value=float(r.request.index % 2 and self.is_good(r.request))) for r in rollouts]


@contextlib.contextmanager
def _clock(phase: str) -> Iterator[None]:
    yield


def kept(groups: Sequence[Group]) -> Counter[tuple[str, str]]:
    """Groups that are trained on, by mode and source."""
    return Counter((g.mode, g.samples[0].rollout.request.prompt.source) for g in groups if not g.dropped)


def test_a_step_worked_by_hand() -> None:
    """Four prompts, two a mode. One of `short` is without signal, and so is the first that replaces it."""
    config = config_of("train.prompts_per_step=4", "train.responses_per_prompt=2")
    pool = mixture({"read": SIZE}, {"read": 1})
    drawn, spare = pool.draw(1, 4), [pool.spare("read", number) for number in range(2)]
    counts = mode_schedule(config).assign(1, drawn, 2)
    short = [prompt.id for prompt, count in zip(drawn, counts, strict=True) if "short" in count]
    bad = {short[0], spare[0].id}
    run = Fakes(config, pool, lambda request: request.prompt.id not in bad)
    found = run.collect(1)
    assert [(g.mode, g.samples[0].rollout.request.prompt.id) for g in found.groups[4:]] == [
        ("short", spare[0].id), ("short", spare[1].id)
    ]  # fmt: skip
    assert [g.dropped for g in found.groups if g.name in {r.group for r in run.asked[1]}] == ["no_signal"]
    assert Counter(g.mode for g in found.groups if not g.dropped) == {"short": 2, "long": 2}
    assert (found.rounds, dict(found.missing)) == (2, {})
    assert found.admission.spare_used == {"read": 2}
    assert [len(requests) for requests in run.asked] == [8, 2, 2]


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 0.8), ratio=st.sampled_from([0.25, 0.5, 0.75]))
def test_with_rounds_enough_every_mode_of_every_source_has_its_groups(seed: int, share: float, ratio: float) -> None:
    config = config_of(
        "train.prompts_per_step=8", f"modes.long_ratio={ratio}", "admission.dynamic_sampling.max_rounds=500"
    )
    pool = mixture({"read": SIZE, "sum": SIZE}, {"read": 1, "sum": 1})
    # Bad more often in one mode than in the other, as an easy mode is.
    run = Fakes(config, pool, lambda r: (r.seed // 7919 + seed) % 1000 >= 1000 * share * (r.mode == "short"))
    run.is_good = _by_group(run.is_good)
    everything = Fakes(config, pool, lambda request: True)
    for step in (1, 2):
        found = run.collect(step)
        assert kept(found.groups) == kept(everything.collect(step).groups)
        assert not found.missing


def _by_group(is_good: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """The same verdict for all responses of a group: that on the first."""
    known: dict[str, bool] = {}
    return lambda request: known.setdefault(request.group, is_good(request))


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_the_bound_is_honoured_and_what_is_missing_is_counted(rounds: int) -> None:
    config = config_of("train.prompts_per_step=4", f"admission.dynamic_sampling.max_rounds={rounds}")
    run = Fakes(config, mixture({"read": SIZE}, {"read": 1}), lambda request: request.mode == "long")
    found = run.collect(1)
    assert len(run.asked) == 1 + rounds == 1 + found.rounds
    assert dict(found.missing) == {"short": 2}
    assert Counter(g.mode for g in found.groups if not g.dropped) == {"long": 2}


def test_every_response_of_a_step_has_a_group_and_a_seed_of_its_own() -> None:
    config = config_of("train.prompts_per_step=4", "admission.dynamic_sampling.max_rounds=30")
    run = Fakes(config, mixture({"read": 3}, {"read": 1}), lambda request: False)
    run.collect(1)
    asked = [request for requests in run.asked for request in requests]
    assert len({request.seed for request in asked}) == len(asked) == 31 * 4 * 4
    assert len({(request.group, request.index) for request in asked}) == len(asked)


def test_spare_prompts_are_those_that_the_run_would_reach_last() -> None:
    pool = mixture({"a": 10}, {"a": 1})
    drawn = [prompt.id for prompt in pool.draw(1, 10)]
    spare = [pool.spare("a", number).id for number in range(20)]
    assert spare[:10] == drawn[::-1]
    assert sorted(spare[10:]) == sorted(drawn)
    assert [prompt.id for prompt in pool.draw(1, 10)] == drawn, "spare prompts do not disturb those that are drawn"


def test_a_prompt_whose_row_names_its_mode_is_replaced_by_one_of_that_mode() -> None:
    class Rows(Numbered):
        def __getitem__(self, index: int) -> Prompt:
            return replace(super().__getitem__(index), columns={"mode": "long" if index % 4 == 0 else "short"})

    config = config_of("modes.assign=column", "modes.long_ratio=null", "train.prompts_per_step=8")
    run = Fakes(config, Mixture({"rows": Rows("rows", 12)}, {"rows": 1}, 0), lambda request: False)
    found = run.collect(1)
    for group in found.groups:
        assert group.samples[0].rollout.request.prompt.columns["mode"] == group.mode
    by_round = [Counter(request.mode for request in requests) for requests in run.asked]
    assert by_round == [by_round[0]] * 4


def test_groups_that_are_compared_with_each_other_stand_or_fall_together() -> None:
    """bpo merges both modes of a prompt: rewards that differ between modes only are signal for either."""
    config = config_of(
        "modes.assign=paired", "train.baseline=bpo", "train.prompts_per_step=2", "train.responses_per_prompt=4"
    )
    run = Fakes(config, mixture({"read": SIZE}, {"read": 1}), lambda request: True)
    first = run.dealer.first(1)[0].place

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        """The draw at the first place is right in one mode and wrong in the other, the other draws are all right."""
        return [Score(value=float(r.request.place != first or r.request.mode == "long")) for r in rollouts]

    run.score = score  # type: ignore[method-assign]
    found = run.collect(1)
    assert [g.dropped for g in found.groups if g.place == first] == ["", ""]
    assert {g.dropped for g in found.groups if g.place != first} == {"no_signal"}
    assert [Counter(r.mode for r in requests) for requests in run.asked[1:]] == [{"short": 2, "long": 2}] * 3


def test_without_dynamic_sampling_groups_without_signal_stay() -> None:
    config = hybrid_rl.load_config(DEFAULT_CONFIG, [*SMALL])
    run = Fakes(config, mixture({"read": SIZE}, {"read": 1}), lambda request: False)
    found = run.collect(1)
    assert [group.dropped for group in found.groups] == [""] * 4
    assert len(run.asked) == 1 and found.admission == AdmissionState()


def test_both_rules_of_admission_leave_vacancies() -> None:
    config = config_of("train.prompts_per_step=4", "admission.std_filter={ema_from_step: 1, filter_from_step: 2}")
    run = Fakes(config, mixture({"read": SIZE}, {"read": 1}), lambda request: True)
    run.collect(1)
    low = run.dealer.first(2)[0].group

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(value=(0.01 if r.request.group == low else 1.0) * (r.request.index % 2)) for r in rollouts]

    run.score = score  # type: ignore[method-assign]
    found = run.collect(2)
    assert [g.dropped for g in found.groups if g.dropped] == ["low_std"]
    assert (found.rounds, len(found.groups)) == (1, 5)


def test_what_is_used_up_survives_json() -> None:
    state = AdmissionState(spare_used={"read": 7})
    assert AdmissionState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert AdmissionState.from_json({"usual_std": {}}) == AdmissionState(), "a checkpoint of an earlier version"


def test_a_vacancy_is_what_a_draw_has_lost(make_rollout: Callable[..., Rollout]) -> None:
    base = make_rollout().request
    requests = [
        replace(base, group=group, mode=mode, place=place)
        for place, group, mode in ((0, "a", "short"), (0, "b", "long"), (0, "b", "long"), (1, "c", "long"))
    ]
    assert vacancies(requests, {"b"}) == [Vacancy(source="read", counts={"long": 2})]
    assert vacancies(requests, {"a", "b"}) == [Vacancy(source="read", counts={"short": 1, "long": 2})]
    pool = mixture({"read": 4}, {"read": 1})
    prompts, used = fill(vacancies(requests, {"a", "c"}), pool, {"read": 1}, lambda prompt, counts: True)
    assert [p.id for p in prompts] == [pool.spare("read", n).id for n in (1, 2)] and used == {"read": 3}


def test_what_is_dropped_has_no_part_in_the_last_normalisation_of_gdpo() -> None:
    """Two good groups and one without signal: the advantages are those of the good ones alone."""
    rules = ["train.aggregate=normalize_then_sum", "train.prompts_per_step=3", "modes.long_ratio=0.5"]
    config = config_of(*rules, "admission.dynamic_sampling.max_rounds=0")
    run = Fakes(config, mixture({"read": SIZE}, {"read": 1}), lambda request: True)
    bad = run.dealer.first(1)[0].group

    def score(rollouts: Sequence[Rollout]) -> list[Score]:
        values = [float(r.request.index % 2 and r.request.group != bad) for r in rollouts]
        return [Score(value=v, parts={"accuracy": v}) for v in values]

    run.score = score  # type: ignore[method-assign]
    found = run.collect(1)
    assert [group.dropped for group in found.groups] == ["no_signal", "", ""]
    good = [sample.rollout for group in found.groups[1:] for sample in group.samples]
    alone = run.grouping.groups(good, score(good), 1)
    assert [[s.advantages for s in group.samples] for group in found.groups[1:]] == [
        [s.advantages for s in group.samples] for group in alone
    ]
    everything = [sample.rollout for group in found.groups for sample in group.samples]
    diluted = run.grouping.groups(everything, score(everything), 1)[1]
    assert abs(diluted.samples[0].advantages[0]) > abs(alone[0].samples[0].advantages[0])


def test_a_masked_group_has_no_signal(make_rollout: Callable[..., Rollout]) -> None:
    run = Fakes(config_of(), mixture({"read": SIZE}, {"read": 1}), lambda request: True)
    group = run.collect(1).groups[0]
    masked = replace(group, samples=tuple(replace(sample, trained=False) for sample in group.samples))
    (decided,), _ = admit([masked], AdmissionState(), run.config.admission, 1)
    assert decided.dropped == "no_signal"


# --- whole runs ------------------------------------------------------------------------------------------------------

GRADER = """
def odd(ids, prompt):
    "Without signal on every third prompt; elsewhere the parity of the length."
    return 1.0 if sum(map(ord, prompt.id)) % 3 == 0 else float(len(ids) % 2)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.py").write_text(GRADER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield [
            *SMALL, *BARE, "warmup=null", "rewards={accuracy: {target: '" + str(folder / "mine.py") + ":odd'}}",
            "admission.dynamic_sampling={max_rounds: 2}", "train.optimizer.learning_rate=1.0e-3",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def refilled(project: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refilled") / "run"
    hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, [*project, f"run.dir={folder}"]))
    return folder


def test_a_run_says_what_it_dropped_and_what_it_cost(refilled: Path) -> None:
    assert sum(row["refill_rounds"] for row in metrics(refilled))
    for row in metrics(refilled):
        found = rows(refilled, row["step"])
        for mode in ("short", "long"):
            dropped = {r["group"] for r in found if r["mode"] == mode and r["dropped"]}
            kept_groups = {r["group"] for r in found if r["mode"] == mode and not r["dropped"]}
            assert row[f"dropped/no_signal/{mode}"] == len(dropped)
            assert len(kept_groups) + row[f"missing/{mode}"] == 2
            tokens = {kind: sum(len(r["ids"]) for r in found if r["mode"] == mode and bool(r["dropped"]) == kind)
                      for kind in (True, False)}  # fmt: skip
            assert row[f"dropped_tokens/{mode}"] == tokens[True]
            assert row[f"update_tokens/{mode}"] == tokens[False]
            assert row[f"rollout_tokens/{mode}"] == tokens[True] + tokens[False]
            total = len({r["group"] for r in found if not r["dropped"]})
            assert row[f"share/{mode}"] == pytest.approx(len(kept_groups) / max(total, 1))
            assert row[f"share_asked/{mode}"] == 0.5


def test_the_reference_sees_only_what_is_trained(refilled: Path) -> None:
    """As many tokens as the update, which dropped groups never reach; no KL is claimed where nothing was trained."""
    assert any(row["dropped_tokens/short"] + row["dropped_tokens/long"] for row in metrics(refilled))
    for row in metrics(refilled):
        forwarded = {
            phase: row.get(f"forwarded_per_s/{phase}", 0.0) * row.get(f"wall_s/{phase}", 0.0)
            for phase in ("reference", "update")
        }
        assert forwarded["reference"] == pytest.approx(forwarded["update"])
        for mode in ("short", "long"):
            assert (f"kl/{mode}" in row) == (row[f"update_tokens/{mode}"] > 0)


def test_a_run_that_could_not_replace_everything_says_so_once(refilled: Path) -> None:
    missing = [mode for mode in ("short", "long") if any(row[f"missing/{mode}"] for row in metrics(refilled))]
    found = [w["text"] for w in summary(refilled)["warnings"] if w["text"].startswith("dynamic sampling left mode")]
    assert sorted(text.split()[4] for text in found) == sorted(missing)


def test_a_resumed_run_draws_the_same(refilled: Path, project: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, Recorder, "step", calls=1)
        with pytest.raises(Interrupted):
            hybrid_rl.run(hybrid_rl.load_config(DEFAULT_CONFIG, [*project, f"run.dir={folder}"]))
    state: dict[str, Any] = json.loads((folder / "checkpoints" / "step_000001" / "state.json").read_text())
    assert state["admission"]["spare_used"], "the test needs a first step that drops something"
    resume(folder)
    assert_same_run(folder, refilled, steps=3)


def test_a_replay_finds_the_prompts_that_replaced_others(refilled: Path) -> None:
    for mode in replay(RunFolder.existing(refilled)):
        assert mode.largest_difference == 0
        assert mode.recorded == mode.replayed
