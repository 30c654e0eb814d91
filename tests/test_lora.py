"""LoRA as a training mode: the adapter alone learns, travels and is saved, and the reference is the base itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEFAULT_CONFIG, SMALL, hand_over, make_groups
from safetensors.torch import load_file
from test_run import assert_same_run, interrupt_after, metrics, summary

import hybrid_rl
from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.algorithm.modes import make_requests
from hybrid_rl.build import plan_run
from hybrid_rl.config import Config, load_config
from hybrid_rl.data.digits import DigitStrips
from hybrid_rl.errors import ConfigError, Interrupted, RunFolderError
from hybrid_rl.exporting import export
from hybrid_rl.insight.formats import short_count
from hybrid_rl.preflight import prepare
from hybrid_rl.quiet import quiet_transformers
from hybrid_rl.records import AnswerQuery, Outcome, Score
from hybrid_rl.saved import Saved, answer, evaluate_saved, open_saved
from hybrid_rl.train import resume
from hybrid_rl.workers.actor import ActorWorker
from hybrid_rl.workers.cluster import InProcess
from hybrid_rl.workers.reference import ReferenceWorker
from hybrid_rl.workers.rollout import RolloutWorker
from hybrid_rl.workers.served_policy import ServedPolicy
from hybrid_rl.workers.setup import WorkerSetup

LORA = ["model.lora={rank: 4, alpha: 8}", "train.optimizer.learning_rate=0.01"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the tiny policy."""
    quiet_transformers()
    from model import tiny_minicpmv

    folder = tmp_path_factory.mktemp("base")
    model, processor = tiny_minicpmv(7, **load_config(DEFAULT_CONFIG, SMALL).model.args)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def lora_config(small_config: Callable[..., Config], base: Path) -> Callable[..., Config]:
    return lambda *overrides: small_config(f"model.path={base}", *LORA, *overrides)


def setup_of(config: Config, checkpoint: Path | None = None) -> WorkerSetup:
    return WorkerSetup(config=config, checkpoint=str(checkpoint) if checkpoint else None)


def groups_of(config: Config, worker: RolloutWorker) -> list[Group]:
    """Groups of one prompt a mode, rewarded so that there is something to learn."""
    source = DigitStrips(name="d", split="train", seed=0, task="read")
    requests = make_requests(
        [source[0], source[1]], list(config.modes.kinds), config.modes, step=1, num_responses=3, seed=0
    )
    rollouts = worker.generate(requests)
    scores = [Score(value=float(i % 3), parts={}, outcome=Outcome.OK) for i in range(len(rollouts))]
    return make_groups(rollouts, scores, eps=1e-4, min_std=1e-6)


def test_gradients_and_updates_touch_the_adapter_only(lora_config: Callable[..., Config]) -> None:
    config = lora_config()
    actor, worker = ActorWorker(setup_of(config)), RolloutWorker(setup_of(config))
    model = actor._policy.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    actor.update(groups_of(config, worker), None)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # A new adapter has B = 0, so that the first gradient reaches B alone; the second reaches both.
    assert changed and all(".lora_B." in name for name in changed)
    actor.update(groups_of(config, worker), None)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if ".lora_" in name}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == changed


def test_a_new_adapter_changes_nothing(lora_config: Callable[..., Config], small_config: Any, base: Path) -> None:
    config = lora_config()
    plain = RolloutWorker(setup_of(small_config(f"model.path={base}")))
    with_adapter = [s.rollout.generation for g in groups_of(config, RolloutWorker(setup_of(config))) for s in g.samples]
    without = [s.rollout.generation for g in groups_of(config, plain) for s in g.samples]
    assert [g.ids for g in with_adapter] == [g.ids for g in without]
    # Adding zero can lay a result out differently in memory, and the next product then sums in another order.
    for ours, plains in zip(with_adapter, without, strict=True):
        assert ours.logprobs == pytest.approx(plains.logprobs, abs=1e-5)


def test_what_travels_is_the_adapter(lora_config: Callable[..., Config]) -> None:
    config = lora_config()
    actor, worker = ActorWorker(setup_of(config)), RolloutWorker(setup_of(config))
    actor.update(groups_of(config, worker), None)
    sent = [actor.weight_bucket(number) for number in range(actor.weight_buckets())]
    # Rank 4 beside each linear layer of the decoder: A is [4, in], B is [out, 4], in float32.
    layers = {k: p for k, p in actor._policy.model.named_parameters() if k.endswith(".base_layer.weight")}
    assert len(layers) == 7  # q, k, v, o, gate, up, down of the one layer
    expected = sum(4 * sum(p.shape) * 4 for p in layers.values())
    assert sum(values.nbytes for bucket in sent for _, values in bucket.pieces) == expected
    assert [bucket.version for bucket in sent] == [1]
    worker.load_bucket(*sent)
    for name, parameter in worker._policy.trained_parameters().items():
        assert torch.equal(parameter, actor._policy.trained_parameters()[name])


def test_the_reference_is_the_base(lora_config: Callable[..., Config], small_config: Any, base: Path) -> None:
    """Also after the adapter has moved, and asking it does not disturb training."""
    config = lora_config()
    actor, worker = ActorWorker(setup_of(config)), RolloutWorker(setup_of(config))
    groups = groups_of(config, worker)
    for _ in range(2):
        actor.update(groups, None)
    hand_over(actor, worker)
    groups = groups_of(config, worker)
    expected = ReferenceWorker(setup_of(small_config(f"model.path={base}"))).logprobs(groups)
    assert actor.reference_logprobs(groups) == expected
    trained = [s.rollout.generation.logprobs for g in groups for s in g.samples]
    assert trained != [row for group in expected for row in group]
    assert actor.reference_logprobs(groups) == expected
    assert all(p.requires_grad for p in actor._policy.trained_parameters().values())


def test_rewards_are_served_the_base_as_the_initial_policy(
    lora_config: Callable[..., Config], small_config: Any, base: Path
) -> None:
    setup = setup_of(lora_config())
    worker, actor = RolloutWorker(setup), ActorWorker(setup)
    actor.update(groups_of(lora_config(), worker), None)
    hand_over(actor, worker)
    handle = ServedPolicy(setup, [InProcess(lambda: worker)], None)
    asked = DigitStrips(name="d", split="train", seed=0, task="read")[0]
    target = handle.format.answer_ids(asked, "long", asked.gold)
    queries = [AnswerQuery(prompt=asked, mode="long", prefix_ids=ids, target_ids=target) for ids in ((), (16, 17))]
    reference = ReferenceWorker(setup_of(small_config(f"model.path={base}")))
    initial = handle.answer_logprobs(queries, initial=True)
    assert initial == reference.initial_answer_logprobs(queries)
    current = handle.answer_logprobs(queries)
    assert max(abs(a - b) for x, y in zip(initial, current, strict=True) for a, b in zip(x, y, strict=True)) > 1e-4
    assert handle.answer_logprobs(queries, initial=True) == initial


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A run of three steps with a checkpoint after each of the last two."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    hybrid_rl.run(load_config(DEFAULT_CONFIG, [*SMALL, *LORA, f"model.path={base}", f"run.dir={folder}"]))
    return folder


def test_a_run_trains_on_policy_and_moves_away_from_the_reference(finished: Path) -> None:
    rows = metrics(finished)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["ratio_deviation"] < 1e-4
    assert rows[0]["kl/short"] == pytest.approx(0, abs=1e-6) and rows[2]["kl/short"] > 1e-6


def test_a_checkpoint_holds_the_adapter_and_names_the_base(finished: Path, base: Path) -> None:
    checkpoint = finished / "checkpoints" / "step_000003"
    assert not (checkpoint / "model.safetensors").exists()
    stored = load_file(checkpoint / "adapter_model.safetensors")
    assert all(".lora_" in name for name in stored)
    described = json.loads((checkpoint / "adapter_config.json").read_text())
    assert (described["r"], described["lora_alpha"]) == (4, 8)
    assert described["base_model_name_or_path"] == str(base)


def test_the_summary_counts_the_base_and_the_adapter_apart(finished: Path, base: Path) -> None:
    num_base = sum(t.numel() for t in load_file(base / "model.safetensors").values())
    stored = load_file(finished / "checkpoints" / "step_000003" / "adapter_model.safetensors")
    num_adapter = sum(t.numel() for t in stored.values())
    assert summary(finished)["policy"] == {"parameters": num_base, "trained_parameters": num_adapter}
    page = (finished / "report.html").read_text()
    for name, count in (("parameters", num_base), ("trained", num_adapter)):
        assert f"<dt>{name}</dt><dd>{short_count(count)}</dd>" in page


def test_peft_itself_loads_the_checkpoint(finished: Path, base: Path, lora_config: Callable[..., Config]) -> None:
    from peft import PeftModel

    from model import MiniCPMVForConditionalGeneration

    checkpoint = finished / "checkpoints" / "step_000003"
    theirs = PeftModel.from_pretrained(MiniCPMVForConditionalGeneration.from_pretrained(base), checkpoint).eval()
    ours = RolloutWorker(setup_of(lora_config(), checkpoint))._policy.model
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours(input_ids=ids).logits, atol=1e-6, rtol=0)


def test_a_resumed_run_equals_an_uninterrupted_one(
    finished: Path, lora_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, ActorWorker, "update", 2)
    config = lora_config()
    with pytest.raises(Interrupted):
        hybrid_rl.run(config)
    folder = Path(config.run.dir or "")
    done = summary(folder)["steps"]
    assert done < 3
    checkpoint = folder / "checkpoints" / f"step_{done:06d}"
    assert (checkpoint / "adapter_model.safetensors").is_file() and not (checkpoint / "model.safetensors").exists()
    resume(folder)
    assert_same_run(finished, folder, 3, weights=False)
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):
        name = f"checkpoints/step_000003/{file}"
        assert (finished / name).read_bytes() == (folder / name).read_bytes(), name


def test_dropout_is_drawn_anew_from_the_seed_by_a_resumed_actor(
    lora_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = lora_config("model.lora={rank: 4, dropout: 0.3}", "train.on_policy_tolerance=10.0")
    groups = groups_of(config, RolloutWorker(setup_of(config)))
    actor = ActorWorker(setup_of(config))
    actor.update(groups, None)
    (tmp_path / "c").mkdir()
    actor.save(str(tmp_path / "c"))
    torch.rand(3)  # whatever else a process draws
    resumed = ActorWorker(setup_of(config, tmp_path / "c"))
    first, second = actor.update(groups, None)[1], resumed.update(groups, None)[1]
    assert first.loss == second.loss and first.grad_norms == second.grad_norms


def test_a_saved_run_can_be_evaluated_and_asked(finished: Path) -> None:
    saved = open_saved(finished)
    assert set(evaluate_saved(saved, 4)) == set(saved.config.modes.kinds)
    assert answer(saved, "Read the digits.", [], [], None, seed=0).text is not None


def test_ray_workers_train_the_same_adapter(finished: Path, lora_config: Callable[..., Config]) -> None:
    config = lora_config("cluster.executor=ray")
    hybrid_rl.run(config)
    folder = Path(config.run.dir or "")
    assert metrics(finished) == metrics(folder)
    name = "checkpoints/step_000003/adapter_model.safetensors"
    assert (finished / name).read_bytes() == (folder / name).read_bytes()


# --- what goes missing ---------------------------------------------------------------------------------------------


@pytest.fixture
def moved(finished: Path, tmp_path: Path) -> Path:
    """The finished run as if it had been interrupted after its second step, with a config that names a gone base."""
    run = Path(shutil.copytree(finished, tmp_path / "moved"))
    shutil.rmtree(run / "checkpoints" / "step_000003")
    (run / "summary.json").unlink()
    config = load_config(run / "config.yaml")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(config.model.path), str(tmp_path / "gone")))
    return run


def test_a_base_that_was_moved_away_is_named(moved: Path, tmp_path: Path) -> None:
    there = (
        rf"{tmp_path / 'gone'}, .* is not there any more.*; put it back, or set model\.path in the run's config\.yaml"
    )
    for use in (
        lambda: resume(moved),
        lambda: evaluate_saved(open_saved(moved), 1),
        lambda: answer(open_saved(moved), "?", [], [], None, seed=0),
        lambda: export(open_saved(moved), tmp_path / "out"),
    ):
        with pytest.raises(ConfigError, match=there):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_file_of_a_checkpoint_is_named(
    finished: Path, base: Path, lora_config: Callable[..., Config], tmp_path: Path, name: str, share: float
) -> None:
    checkpoint = Path(shutil.copytree(finished / "checkpoints" / "step_000003", tmp_path / "checkpoint"))
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunFolderError, match=rf"{name} cannot be read: .*; restore it, or start the run anew"):
        ActorWorker(setup_of(lora_config(), checkpoint))
    if name.startswith("adapter"):
        with pytest.raises(RunFolderError, match=rf"{name} cannot be read"):
            export(Saved(lora_config(), str(checkpoint)), tmp_path / "out", adapter_only=True)
        assert not (tmp_path / "out").exists()


# --- what is asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.path=null"], "set model.path"),
        (["model.lora={rank: 0}"], "greater than or equal to 1"),
        (["model.lora={parts: [eyes]}"], "no part 'eyes'"),
        (["model.lora={dropout: 0.1}"], "on_policy_tolerance"),
        (["model.lora={ranks: 4}"], "did you mean 'rank'"),
    ],
)
def test_bad_settings_are_refused(lora_config: Callable[..., Config], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lora_config(*overrides)


def test_layers_that_do_not_exist_are_refused_before_anything_is_loaded(lora_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"no linear layer 'c_attn'; there are .*q_proj"):
        prepare(lora_config("model.lora={target_modules: [c_attn]}"))


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("{resampler: 0.5}", r"^train\.optimizer\.learning_rate_scale: the adapter has no layers of part 'resampler'"),
        ("{decoder: 0}", "^train.optimizer.learning_rate_scale freezes every part"),
    ],
)
def test_a_scale_that_finds_no_layer_is_refused_in_the_plan(
    lora_config: Callable[..., Config], scale: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_run(lora_config(f"train.optimizer.learning_rate_scale={scale}"))


def test_the_plan_counts_what_the_optimizer_changes(lora_config: Callable[..., Config]) -> None:
    lora = "model.lora={rank: 4, parts: [resampler, decoder]}"
    config = lora_config(lora, "train.optimizer.learning_rate_scale={decoder: 0}")
    actor = ActorWorker(setup_of(config))
    trained = {name: p for name, p in actor._policy.trained_parameters().items() if name.startswith("resampler.")}
    assert prepare(config).num_trained_parameters == sum(p.numel() for p in trained.values()) > 0


def test_parts_choose_the_layers(lora_config: Callable[..., Config]) -> None:
    config = lora_config("model.lora={parts: [vision_tower, resampler], target_modules: [fc1, out_proj]}")
    names = ActorWorker(setup_of(config))._policy.trained_parameters()
    assert {name.split(".")[0] for name in names} == {"vpm", "resampler"}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {"fc1", "out_proj"}


def test_an_adapter_of_another_rank_is_refused(finished: Path, lora_config: Callable[..., Config]) -> None:
    with pytest.raises(RunFolderError, match=r"does not fit model\.lora"):
        RolloutWorker(setup_of(lora_config("model.lora={rank: 2}"), finished / "checkpoints" / "step_000003"))


def test_gradient_checkpointing_changes_memory_and_not_the_gradient(lora_config: Callable[..., Config]) -> None:
    config = lora_config()
    groups = groups_of(config, RolloutWorker(setup_of(config)))
    plain = ActorWorker(setup_of(config))
    saving = ActorWorker(setup_of(lora_config("model.gradient_checkpointing=true")))
    assert saving._policy.model.is_gradient_checkpointing
    first, second = plain.update(groups, None)[1], saving.update(groups, None)[1]
    assert first.grad_norms == pytest.approx(second.grad_norms, rel=1e-5)


def test_an_adapter_is_trained_in_float32_beside_a_base_in_bfloat16(lora_config: Callable[..., Config]) -> None:
    config = lora_config("model.dtype=bfloat16")
    actor, worker = ActorWorker(setup_of(config)), RolloutWorker(setup_of(config))
    dtypes = {".lora_" in name: p.dtype for name, p in actor._policy.model.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    for _ in range(2):
        figures = actor.update(groups_of(config, worker), None)[1]
        hand_over(actor, worker)
    assert 0 < figures.grad_norms[0] < float("inf") and figures.ratio_deviation < 0.3
    for name, parameter in worker._policy.trained_parameters().items():
        assert torch.equal(parameter, actor._policy.trained_parameters()[name])
