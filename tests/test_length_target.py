"""A mode's prompt asks for a length, and a reward compares with it (L1); length terms have limits by mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hybrid_rl.algorithm.length_target import with_target
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import Config
from hybrid_rl.config.modes import KindConfig
from hybrid_rl.errors import ConfigError, DataError, PluginError, UserError
from hybrid_rl.insight.prompt_view import view_prompts
from hybrid_rl.preflight import prepare
from hybrid_rl.records import Message, Prompt
from rewards.length_shaping import CosineScaled, KimiLength, L1Exact, L1Max, SoftOverlong, cosine_scaled, soft_overlong

SmallConfig = Callable[..., Config]
PROMPT = Prompt(
    id="p", source="s", task="t", gold="1",
    messages=(Message(role="system", text="Be kind."), Message(role="user", text="Add.")),
)  # fmt: skip


def kinds(**long: Any) -> dict[str, KindConfig]:
    return {"short": KindConfig(max_new_tokens=9), "long": KindConfig(max_new_tokens=99, **long)}


def test_the_target_stands_behind_the_question_of_its_mode_alone() -> None:
    asked = with_target(PROMPT, "long", kinds(target_length=40))
    assert [m.text for m in asked.messages] == ["Be kind.", "Add.\nThink for 40 tokens."]
    assert asked.columns == {"target_length": 40}
    other = with_target(PROMPT, "short", kinds(target_length=40))
    assert other.messages == PROMPT.messages and other.columns == {"target_length": None}
    assert with_target(PROMPT, "long", kinds()) is PROMPT
    own = with_target(replace(PROMPT, columns={"target_length": 7}), "long", kinds(target_length=40))
    assert own.messages[-1].text.endswith("Think for 7 tokens.")


def test_a_row_whose_length_is_none_is_named_and_not_overlooked() -> None:
    def asked(own: Any, mode: str = "long") -> Any:
        return with_target(replace(PROMPT, columns={"target_length": own}), mode, kinds(target_length=40)).columns

    assert asked(7.0) == {"target_length": 7}  # a table with gaps
    assert asked(None) == {"target_length": 40}
    for wrong in ("7", 0, -3, 7.5, True, float("nan"), float("inf"), [7]):
        with pytest.raises(DataError, match="prompt p of source s: `target_length` must be a whole number above 0"):
            asked(wrong)
        assert asked(wrong, "short") == {"target_length": None}


def test_a_prompt_without_a_user_turn_cannot_ask_for_a_length() -> None:
    with pytest.raises(DataError, match="prompt p of source s has no user turn for the length that mode long asks for"):
        with_target(replace(PROMPT, messages=PROMPT.messages[:1]), "long", kinds(target_length=40))


def test_a_drawn_target_is_the_prompts_own_and_all_of_the_range_is_drawn() -> None:
    drawing = kinds(target_length=3, target_length_to=6, target_text="Use {target_length}.")
    found = [with_target(replace(PROMPT, id=str(i)), "long", drawing).columns["target_length"] for i in range(200)]
    assert set(found) == {3, 4, 5, 6}
    again = [with_target(replace(PROMPT, id=str(i)), "long", drawing).columns["target_length"] for i in range(200)]
    assert found == again


def test_every_response_of_a_group_is_asked_for_the_same_and_the_user_can_see_it(small_config: SmallConfig) -> None:
    config = small_config("modes.kinds.long.target_length=20", "modes.kinds.long.target_length_to=30")
    requests = make_requests([PROMPT], ["long"], config.modes, step=1, num_responses=4, seed=0)
    assert len({id(request.prompt) for request in requests}) == 1
    assert 20 <= requests[0].prompt.columns["target_length"] <= 30
    views = {view.mode: "".join(p.text for p in view.pieces) for view in view_prompts(config, None, 0, "train")}
    assert "Think for 2" in views["long"].replace("30", "2") and "Think for" not in views["short"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["modes.kinds.long.target_length=0"], "greater than or equal to 1"),
        (["modes.kinds.long.target_length_to=9"], "give a target_length that is not larger"),
        (["modes.kinds.long.target_length=9", "modes.kinds.long.target_length_to=8"], "not larger"),
        (["modes.kinds.long.target_text=Think."], "does not say the length"),
        (["modes.kinds.long.target_text='{target_length} {x}'"], "no braces but"),
        (["rewards.length={target: 'rewards.length_shaping:L1Exact'}"], "no prompt asks for one; give modes.kinds"),
        (
            ["rewards.length={target: 'rewards.length_shaping:SoftOverlong', args: {max_completion_len: 8, "
             "soft_punish_cache: 4, modes: {lnog: {max_completion_len: 9}}}}"],
            "limits for mode 'lnog', and the run has short, long",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(small_config: SmallConfig, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepare(small_config(*overrides))
    assert issubclass(ConfigError, UserError)


def test_l1_by_hand() -> None:
    """Exact: correct - alpha |n - L|; correct is the accuracy part. Max: correct x clip(alpha (n - L) + delta)."""
    assert L1Exact(alpha=0.01)([0] * 30, target_length=40) == pytest.approx(-0.1)
    assert L1Exact(alpha=0.01)([0] * 50, target_length=40) == pytest.approx(-0.1)
    assert L1Exact()([0] * 50) == 0.0
    longest = L1Max("rewards.text_match:text_match", alpha=0.01)
    right = {"answer": "Paris", "gold": "paris", "well_formed": True}
    assert longest([0] * 30, **right, target_length=40) == pytest.approx(0.6)
    assert longest([0] * 60, **right, target_length=40) == pytest.approx(0.3)
    assert longest([0] * 30, **right | {"answer": "Rome"}, target_length=40) == 0.0
    assert longest([0] * 30, **right) == 1.0


def test_kimis_lengths_are_compared_within_a_group() -> None:
    """The group of a reward is one prompt in one mode, so that no mode wins by being the short one."""
    reward = KimiLength("rewards.text_match:text_match")
    assert reward.per == "group"
    found = reward(ids=[[0] * 10, [0] * 20, [0] * 30], answer=["a", "a", None], gold=["a"] * 3, well_formed=[True] * 3)
    assert found == [0.5, 0.0, -0.5]


def test_length_terms_have_limits_by_mode() -> None:
    overlong = SoftOverlong(10, 4, modes={"long": {"max_completion_len": 100}})
    assert overlong([0] * 9, mode="short") == soft_overlong(9, 10, 4) < 0
    assert overlong([0] * 9, mode="long") == 0.0
    assert overlong([0] * 99, mode="long") == soft_overlong(99, 100, 4) < 0
    cosine = CosineScaled("rewards.text_match:text_match", max_len=4, modes={"long": {"max_len": 40}})
    right = {"answer": "1", "gold": "1", "well_formed": True}
    assert cosine([0] * 4, **right, mode="short") == cosine_scaled(4, 4, True)
    assert cosine([0] * 4, **right, mode="long") == cosine_scaled(4, 40, True)
    with pytest.raises(PluginError, match="mode long: there is no 'max_len'; write max_completion_len"):
        SoftOverlong(10, 4, modes={"long": {"max_len": 3}})
    with pytest.raises(PluginError, match="not 4 with 3"):
        SoftOverlong(10, 4, modes={"long": {"max_completion_len": 3}})
