"""`hybrid-rl rewards fuzz`: it finds what is wrong with a reward, and does not blame one that is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hybrid_rl.authoring.cases import LabelledCase
from hybrid_rl.authoring.fuzz import FuzzReport, fuzz
from hybrid_rl.authoring.hacks import HACKS
from hybrid_rl.authoring.mutations import MUTATIONS
from hybrid_rl.authoring.references import references_for
from hybrid_rl.authoring.subject import Subject
from hybrid_rl.cli.main import app
from hybrid_rl.errors import UserError
from hybrid_rl.plugins import load

GRADERS = """
import re, time
def exact(answer, gold): return float(answer == gold)
def stripped(answer, gold): return float(answer.strip() == gold)
def contains(answer, gold): return float(gold in answer)
def brittle(answer, gold): return float(int(answer) == int(gold)) if answer.isdigit() else float(answer == gold)
def slow(answer, gold):
    if "<table>" in answer: time.sleep(60)
    return float(answer == gold)
def half_spaced(answer, gold): return float(answer.strip(" \\n") == gold)
def group(answer, gold): return [float(a == g) for a, g in zip(answer, gold)]
group.per = "group"
async def later(answer, gold): return float(answer == gold)
def ranked(answer, rank: int): return 1.0 / rank
def ranked_gold(answer, gold, rank: int): return 1.0 / rank
"""


@pytest.fixture
def graders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "graders.py").write_text(GRADERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuzzed(target: str, number: int = 300, seed: int = 0, **chosen: Any) -> FuzzReport:
    # Scorer processes stay where they were started; the folder is named and not meant.
    subject = Subject(target, (str(Path.cwd()),), timeout_s=1.0)
    try:
        return fuzz(subject, references_for(subject), number=number, seed=seed, **chosen)
    finally:
        subject.close()


def failing(report: FuzzReport) -> set[str]:
    return {found.name for found in report.classes if found.failed}


def test_a_strict_reward_is_not_blamed_for_what_it_does_not_claim(graders: Path) -> None:
    report = fuzzed("graders.py:exact")
    assert not report.failed and set(report.unclaimed) == set(MUTATIONS)
    assert sum(found.count for found in report.classes) == 300
    assert failing(fuzzed("graders.py:exact", mutations=["period", "boxed"])) == {"period", "boxed"}
    assert not fuzzed("graders.py:stripped").failed
    assert "blanks" not in fuzzed("graders.py:stripped").unclaimed


def test_what_is_half_claimed_is_found_with_its_smallest_example(graders: Path) -> None:
    report = fuzzed("graders.py:half_spaced")
    assert failing(report) == {"blanks"}
    (found,) = (found for found in report.classes if found.failed)
    assert found.smallest is not None and "\t" in found.smallest.input.answer
    assert len(found.smallest.input.answer) <= len(str(found.smallest.input.gold)) + 3


def test_containment_is_paid_for_dumps(graders: Path) -> None:
    report = fuzzed("graders.py:contains", number=1200)
    assert failing(report) >= {"all_options", "hedged", "denied", "question", "word_dump", "number_list", "boxes"}
    assert report.failed


def test_exceptions_and_hangs_are_counted_and_shrunk(graders: Path) -> None:
    brittle = fuzzed("graders.py:brittle", number=600)  # "²".isdigit() is true, and int() refuses it
    (noise,) = (found for found in brittle.classes if found.kind == "noise")
    assert noise.errors and noise.smallest is not None and len(noise.smallest.input.answer) == 1
    subject = Subject("graders.py:slow", (str(Path.cwd()),), timeout_s=0.1)
    slow = fuzz(subject, references_for(subject, golds=["a"]), number=30, seed=0, mutations=["blanks"], hacks=[])
    subject.close()
    assert all(found.timeouts == found.failed for found in slow.classes if found.kind == "noise")


def test_groups_coroutines_and_columns_are_served(graders: Path) -> None:
    for target in ("graders.py:group", "graders.py:later"):
        assert not fuzzed(target, number=60).failed
    report = fuzzed("graders.py:ranked", number=50)
    assert report.references == () and failing(report) <= {"noise"}


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    target = "rewards.math_answer:math_answer"
    subject = Subject(target)
    seen: list[list[str]] = []
    plain_ask = subject.ask

    def ask(trials: Any) -> Any:
        seen[-1] += [trial[0] for trial in trials]
        return plain_ask(trials)

    subject.ask = ask  # type: ignore[method-assign]
    references = references_for(Subject(target), golds=["42", "3/4"])
    for seed in (1, 1, 2):
        seen.append([])
        fuzz(subject, references, number=60, seed=seed)
    subject.close()
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_leave_the_value_alone(name: str) -> None:
    """By a reader of another kind: what is put around is taken off again, digits are read by Python itself."""
    from random import Random

    for text in ("42", "-3", "1234", "0.25", "red apple", "x^2+1", "3/4"):
        for number in range(20):
            written = MUTATIONS[name].rewrite(Random(f"{name} {number}"), text)
            if written is None or name in ("after_thought", "announced", "boxed", "fractions", "full_width"):
                continue
            if name in ("digits", "zeros", "grouped", "minus"):
                assert float(written.replace(",", "").replace("\u2212", "-")) == float(text)
            else:
                bare = written.strip("$*\\()[] \t\n.\u00a0\u2009\u3000\u202f")
                for space in ("\\quad", "\\,", "\\;", "\\:", "\\ ", " ", "\t"):
                    bare = bare.replace(space, "")
                assert bare.casefold() == text.replace(" ", "").casefold()


def test_labelled_cases_are_references(graders: Path) -> None:
    subject = Subject("graders.py:stripped", (str(Path.cwd()),))
    row = {"id": "a", "kind": "k", "label": "m", "metric": "m", "gold": "red"}
    cases = [LabelledCase(pred=" red", expected=True, **row), LabelledCase(pred="blue", expected=False, **row)]
    assert [r.bare for r in references_for(subject, cases=cases)] == [" red"]
    subject.close()
    with pytest.raises(UserError, match="pays none of the 1 given references in full"):
        references_for(Subject("graders.py:ranked_gold", (str(Path.cwd()),), columns={"rank": 2}), cases=cases)


def test_the_command_says_what_failed(graders: Path) -> None:
    run = CliRunner().invoke
    found = run(app, ["rewards", "fuzz", "graders.py:contains", "--number", "200", "--json", "--gold", "42"])
    report = json.loads(found.stdout)
    assert found.exit_code == 1 and report["failed"] and report["references"] == ["42"] and report["count"] == 200
    assert {c["class"] for c in report["classes"]} == {c for c in (*MUTATIONS, *HACKS, "noise")} - set(
        report["unclaimed"]
    ) - {"unclosed_thought"}
    good = run(app, ["rewards", "fuzz", "graders.py:stripped", "--number", "100"])
    assert good.exit_code == 0 and "graders.py:stripped: ok" in good.stdout
    with pytest.raises(UserError, match=r"--hacks: there is no class 'word_dumps'; did you mean 'word_dump'\?"):
        run(app, ["rewards", "fuzz", "graders.py:exact", "--hacks", "word_dumps"], catch_exceptions=False)
    with pytest.raises(UserError, match="name one reward to fuzz, or give --all"):
        run(app, ["rewards", "fuzz"], catch_exceptions=False)


TARGETS = list(dict.fromkeys(load("rewards.catalog:CATALOG").values()))


@pytest.mark.parametrize("target", TARGETS)
def test_built_in_rewards_withstand_it(target: str) -> None:
    report = fuzzed(target, number=250, seed=1)
    assert not report.failed, [(c.name, c.smallest) for c in report.classes if c.failed and not c.known]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_built_in_rewards_withstand_two_thousand_inputs(target: str) -> None:
    """`hybrid-rl rewards fuzz --all --number 10000` does the same with more, in some ten minutes."""
    report = fuzzed(target, number=2_000)
    assert not report.failed, [(c.name, c.smallest) for c in report.classes if c.failed and not c.known]
