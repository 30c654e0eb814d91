"""A config that is wrong says where, what, and how to mend it; one that is right survives a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import DEFAULT_CONFIG, REPOSITORY

from hybrid_rl.config import dump_config, load_config
from hybrid_rl.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


MINIMAL = """\
data: {sources: {a: {target: "m:n"}}}
modes:
  kinds:
    short: {max_new_tokens: 4}
    long: {max_new_tokens: 8}
rewards:
  accuracy: {target: "m:n"}
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.prompt_per_step=8", "no key 'train.prompt_per_step'; did you mean 'prompts_per_step'"),
        ("modes.kinds.short.max_new_token=8", "did you mean 'max_new_tokens'"),
        ("rewards.accuracy.foo=1", "valid here: target, by_task, by_column, column"),
        ("modes.long_ratio=1.5", "modes.long_ratio: input should be less than or equal to 1, not 1.5"),
        ("modes.long_ratio=-0.1", "greater than or equal to 0"),
        ("train.responses_per_prompt=1", "greater than or equal to 2, not 1"),
        ("run.steps=many", "run.steps: input should be a valid integer, not 'many'"),
        ("run.steps=2.5", "run.steps"),
        ("run.steps", "is not an override; write section.key=value"),
        ("run.steps.deeper=1", "'run.steps' has no keys below it"),
        ("modes.kinds.third.max_new_tokens=4", "exactly two kinds, here are 3"),
        ("modes.kinds.short.share=0.5", "either long_ratio or the share"),
        ("train.mini_batches=99", "more than the 16 prompts"),
        ("train.optimizer.learning_rate_scale={vison: 0.0}", "no part 'vison'"),
        ("data=null", "data: input should be a valid mapping"),
        ("rewards.accuracy=null", "rewards.accuracy"),
    ],
)
def test_a_wrong_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(DEFAULT_CONFIG, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (MINIMAL + "trian: {}\n", ":8", "no key 'trian'; did you mean 'train'"),
        (MINIMAL.replace("max_new_tokens: 8", "max_new_tokens: eight"), ":5", "valid integer, not 'eight'"),
        (MINIMAL + "rewards: {}\n", ":8", "'rewards' is given twice, first in line 6"),
        (MINIMAL.replace("accuracy", "exactness"), "", "one part must be called accuracy"),
        (
            MINIMAL.replace("{max_new_tokens: 8}", "{}"),
            ":5",
            "'modes.kinds.long.max_new_tokens' is missing; it is: Budget",
        ),
        ("a: [1, 2", ":1", "not valid YAML"),
        ("- 1\n", ":1", "a config is a mapping"),
        ("", "", "is empty"),
        ("# only a comment\n", "", "is empty"),
        ("a: &x {b: *x}\n", "", "alias"),
    ],
)
def test_a_wrong_file_is_explained_with_its_line(tmp_path: Path, text: str, place: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert f"{path}{place}" in str(caught.value)


def test_missing_binary_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no config file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not text"):
        load_config(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_exponents_are_numbers_and_strict_types_hold() -> None:
    config = load_config(DEFAULT_CONFIG, ["train.optimizer.learning_rate=1e-5"])
    assert config.train.optimizer.learning_rate == 1e-5
    with pytest.raises(ConfigError):
        load_config(DEFAULT_CONFIG, ["run.seed='1'"])
    with pytest.raises(ConfigError):
        load_config(DEFAULT_CONFIG, ["train.kl_coefficient=.nan"])


def test_round_trip(tmp_path: Path) -> None:
    config = load_config(DEFAULT_CONFIG, ["run.seed=7", "modes.long_ratio=0.25"])
    again = load_config(write(tmp_path, dump_config(config)))
    assert again.model_copy(update={"search": config.search}) == config
    assert again.name == "grpo_mixed"


def test_shares_of_three_kinds(tmp_path: Path) -> None:
    three = MINIMAL.replace(
        "    short: {max", "    medium: {share: 0.2, max_new_tokens: 6}\n    short: {share: 0.3, max"
    )
    config = load_config(write(tmp_path, three.replace("long: {", "long: {share: 0.5, ")))
    assert config.modes.shares == {"medium": 0.2, "short": 0.3, "long": 0.5}
    with pytest.raises(ConfigError, match=r"add up to 0\.9"):
        load_config(write(tmp_path, three.replace("long: {", "long: {share: 0.4, ")))
    with pytest.raises(ConfigError, match="without one: long"):
        load_config(write(tmp_path, three))


def test_long_ratio_is_shorthand_for_the_shares_in_their_order() -> None:
    assert load_config(DEFAULT_CONFIG, ["modes.long_ratio=0.25"]).modes.shares == {"short": 0.75, "long": 0.25}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_load_and_are_short(path: Path) -> None:
    load_config(path)
    assert len(path.read_text().splitlines()) <= 40


def test_the_reference_in_docs_is_what_the_schema_says() -> None:
    from hybrid_rl.insight.reference import render

    assert (REPOSITORY / "docs" / "config.md").read_text() == render(), "run `make docs`"
    rows = [line for line in render().splitlines() if line.startswith("|")]
    assert all(line.endswith(" |") or line.endswith("---|") for line in rows), "a row of a table is one line"


def test_the_resolved_config_holds_no_python_objects() -> None:
    assert isinstance(yaml.safe_load(dump_config(load_config(DEFAULT_CONFIG))), dict)
