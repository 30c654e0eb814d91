"""The rollout engine: it samples what the policy says, each response on its own, and forwards prompts once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL
from hypothesis import given
from hypothesis import strategies as st

from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.config import load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import DataError
from hybrid_rl.policy import Policy
from hybrid_rl.records import Finish, Request
from hybrid_rl.updates.forward import response_logprobs
from hybrid_rl.updates.rows import Row
from rollouts.sampling import sample_tokens
from rollouts.torch_engine import TorchEngine

CONFIG = load_config(
    DEFAULT_CONFIG, [*SMALL, "modes.kinds.short.max_new_tokens=6", "modes.kinds.long.max_new_tokens=15"]
)


def requests(step: int = 1, num_prompts: int = 4, num_responses: int = 3) -> list[Request]:
    source = DigitStrips(name="d", split="train", seed=0, task="sum")
    prompts = [source[i] for i in range(num_prompts)]
    modes = ["short", "long"] * (num_prompts // 2)
    return make_requests(prompts, modes, CONFIG.modes, step=step, num_responses=num_responses, seed=0)


def test_recorded_logprobs_are_those_of_the_trainer(tiny_policy: Policy) -> None:
    wanted = requests()
    generations = TorchEngine(tiny_policy).generate(wanted)
    rows = [
        Row(tiny_policy.format.inputs(r.prompt, r.mode), g.ids, r.temperature)
        for r, g in zip(wanted, generations, strict=True)
    ]
    with torch.no_grad():
        found = response_logprobs(tiny_policy, rows).logprobs_BL
    for row, generation in zip(found, generations, strict=True):
        torch.testing.assert_close(row[: len(generation.ids)], torch.tensor(generation.logprobs), atol=1e-5, rtol=0)


def test_logprobs_equal_those_of_a_plain_forward_pass(tiny_policy: Policy) -> None:
    """Against the model itself, without our embedding, padding and cache."""
    request = requests(num_prompts=2, num_responses=1)[1]
    (generation,) = TorchEngine(tiny_policy).generate([request])
    inputs = tiny_policy.format.inputs(request.prompt, request.mode)
    ids = torch.tensor([[*inputs.ids, *generation.ids]])
    media = {key: [value] for key, value in inputs.media.items()}
    with torch.no_grad():
        logits = tiny_policy.model(input_ids=ids, **media).logits[0, len(inputs.ids) - 1 : -1]
    logits[:, list(tiny_policy.forbidden_ids)] = float("-inf")
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(generation.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(generation.logprobs), expected, atol=1e-5, rtol=0)


def test_a_response_does_not_depend_on_its_company(tiny_policy: Policy) -> None:
    wanted = requests()
    together = TorchEngine(tiny_policy).generate(wanted)
    in_small_batches = TorchEngine(tiny_policy, max_rows=2).generate(wanted)
    alone = [TorchEngine(tiny_policy).generate([request])[0] for request in wanted]
    assert [g.ids for g in together] == [g.ids for g in in_small_batches] == [g.ids for g in alone]


def test_responses_of_a_group_differ_and_repeat_with_their_seed(tiny_policy: Policy) -> None:
    engine = TorchEngine(tiny_policy)
    first, again, later = engine.generate(requests()), engine.generate(requests()), engine.generate(requests(step=2))
    assert [g.ids for g in first] == [g.ids for g in again]
    assert [g.ids for g in first] != [g.ids for g in later]
    assert len({g.ids for g in first[:3]}) == 3


def test_budgets_hold_and_the_finish_says_so(tiny_policy: Policy) -> None:
    for request, generation in zip(requests(), TorchEngine(tiny_policy).generate(requests()), strict=True):
        assert 1 <= len(generation.ids) <= request.max_new_tokens
        ended = generation.ids[-1] in tiny_policy.format.stop_ids(request.mode)
        assert generation.finish is (Finish.STOP if ended else Finish.LENGTH)
        assert ended or len(generation.ids) == request.max_new_tokens
        assert len(generation.ids) == len(generation.logprobs) == len(generation.sampled)


def test_an_image_placeholder_is_never_sampled(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the model is sure of nothing else."""
    placeholder = tiny_policy.forbidden_ids[0]
    forward = tiny_policy.model.forward

    def eager_for_placeholders(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits[..., placeholder] = 1e4
        return output

    monkeypatch.setattr(tiny_policy.model, "forward", eager_for_placeholders)
    for generation in TorchEngine(tiny_policy).generate(requests()):
        assert placeholder not in generation.ids


def test_each_prompt_is_prefilled_once_and_its_image_encoded_once(
    tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(tiny_policy)
    engine.generate(requests())  # the first call also compares two ways to compute
    encoded: list[int] = []
    rows: list[tuple[int, int]] = []
    features, forward = tiny_policy.model.get_image_features, tiny_policy.model.forward

    def count_images(pixel_values: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(sum(len(sample) for sample in pixel_values))
        return features(pixel_values, *args, **kwargs)

    def count_rows(*args: Any, **kwargs: Any) -> Any:
        embeds, ids = kwargs.get("inputs_embeds"), kwargs.get("input_ids")
        rows.append(tuple((embeds if embeds is not None else ids).shape[:2]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_policy.model, "get_image_features", count_images)
    monkeypatch.setattr(tiny_policy.model, "forward", count_rows)
    generations = engine.generate(requests())
    prompts = {r.group: tiny_policy.format.inputs(r.prompt, r.mode).ids for r in requests()}
    assert sum(encoded) == 4  # four prompts of three responses
    assert rows[0] == (1, sum(map(len, prompts.values())))  # end to end, without padding
    # A finished response takes part in no further pass: each pass has as many rows as responses go on.
    lengths = [len(g.ids) for g in generations]
    expected = [(sum(length > t for length in lengths), 1) for t in range(1, max(lengths))]
    assert rows[1:] == expected
    figures = engine.figures
    assert (figures.prefill_tokens, figures.decoded_tokens) == (rows[0][1], sum(lengths))
    assert (figures.decode_steps, figures.row_steps) == (len(expected), sum(n for n, _ in expected))
    assert (figures.padding_fraction, figures.vision_encodes, figures.unique_images) == (0, 4, 4)


def test_a_prompt_beyond_the_context_is_refused(tiny_policy: Policy) -> None:
    (request,) = requests(num_prompts=2, num_responses=1)[:1]
    long = Request(
        prompt=request.prompt, mode="short", group="g", index=0, seed=0, max_new_tokens=1020, temperature=1.0
    )
    with pytest.raises(DataError, match=r"more than the context of 1024"):
        TorchEngine(tiny_policy).generate([long])


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.integers(0, 5))
def test_sampling_follows_the_distribution(logits: list[float], banned: int) -> None:
    row = torch.tensor(logits)
    if banned < len(logits) - 1:
        row[banned] = float("-inf")
    logprobs = row.log_softmax(-1)
    count = 4000
    uniforms = torch.from_numpy(np.random.default_rng(0).random(count, dtype=np.float32))
    tokens, chosen = sample_tokens(logprobs.expand(count, -1), uniforms)
    share = np.bincount(tokens.numpy(), minlength=len(logits)) / count
    assert share == pytest.approx(logprobs.exp().numpy(), abs=0.04)
    assert torch.equal(chosen, logprobs[tokens])
    assert share[torch.isneginf(logprobs).numpy()].sum() == 0


def test_sampling_at_the_edges_draws_no_impossible_token() -> None:
    logprobs = torch.tensor([[0.0, 1.0, 1.0, 0.0]]).log().log_softmax(-1).expand(2, -1)
    tokens, _ = sample_tokens(logprobs, torch.tensor([0.0, 1 - 2**-24]))
    assert tokens.tolist() == [1, 2]


def test_temperature_sharpens(tiny_policy: Policy) -> None:
    logits = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    cold, hot = tiny_policy.logprobs(logits, 0.25), tiny_policy.logprobs(logits, 2.0)
    assert cold.max() > hot.max()
    assert cold.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_requests_have_their_own_seeds() -> None:
    seeds = Counter(r.seed for step in (1, 2) for r in requests(step))
    assert max(seeds.values()) == 1
