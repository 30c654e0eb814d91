"""A sample as one object of `rollouts/step_NNNNNN.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hybrid_rl.algorithm.advantage import Group
from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.film_strip import film_strip
from hybrid_rl.images import content_name, inline_png
from hybrid_rl.records import Outcome, Prompt, Sample
from hybrid_rl.run_folder import RunFolder
from hybrid_rl.videos import VideoRef


def sample_rows(
    step: int, groups: Sequence[Group], folder: RunFolder, chat: TemplateChatFormat
) -> Iterator[dict[str, Any]]:
    """Everything about each sample, so that rewards and advantages can be recomputed from the file alone."""
    for group in groups:
        request = group.samples[0].rollout.request
        shown = {"prompt": chat.prompt_text(request.prompt, request.mode), **_media(request.prompt, folder, chat)}
        for sample in group.samples:
            yield {"step": step, **_row(sample), "dropped": group.dropped, **shown}


def _row(sample: Sample) -> dict[str, Any]:
    rollout, score = sample.rollout, sample.score
    request, generation, response = rollout.request, rollout.generation, rollout.response
    scalar = len(set(sample.advantages)) <= 1
    return {
        "prompt_id": request.prompt.id,
        "group": request.group,
        "index": request.index,
        "mode": request.mode,
        "source": request.prompt.source,
        "task": request.prompt.task,
        "text": response.text,
        "thought": response.thought,
        "answer": response.answer,
        "ids": list(generation.ids),
        "logprobs": list(generation.logprobs),
        "sampled": list(generation.sampled),
        "gold": request.prompt.gold,
        "parts": dict(score.parts),
        "terms": dict(score.terms),
        "reward": score.value if score.outcome is Outcome.OK else None,
        # One number where the estimator gives every token the same, as group-relative ones do.
        "advantage": (sample.advantages[0] if sample.advantages else 0.0) if scalar else list(sample.advantages),
        "trained": sample.trained,
        "outcome": score.outcome.value,
        "finish": generation.finish.value,
        "policy_versions": list(rollout.versions),
    }


def _media(prompt: Prompt, folder: RunFolder, chat: TemplateChatFormat) -> dict[str, list[str]]:
    """Paths in the run folder of the prompt's images, and of a strip of frames of each of its videos."""
    images = [folder.write_image(content_name(ref), ref.read_bytes) for ref in prompt.images]
    strips = [_strip(ref, folder, chat) for ref in prompt.videos]
    return {"images": images, "videos": strips} if strips else {"images": images}


def _strip(ref: VideoRef, folder: RunFolder, chat: TemplateChatFormat) -> str:
    name = f"{ref.digest().hex()}.strip.png"
    return folder.write_image(name, lambda: inline_png(film_strip(chat.clip(ref))).data)
