"""A judge: a chat model behind an OpenAI-compatible endpoint grades the final answer."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from hybrid_rl.errors import PluginError
from hybrid_rl.records import Outcome, Score
from rewards.judging.asking import Asker, Patience
from rewards.judging.cache import VerdictCache, content_key, default_folder
from rewards.judging.endpoint import Endpoint
from rewards.judging.errors import JudgeError
from rewards.judging.question import Question
from rewards.judging.rule import Rule
from rewards.judging.single_flight import SingleFlight
from rewards.judging.template import DEFAULT_TEMPLATE, Template, question_of
from rewards.judging.usage import Meter, Usage
from rewards.judging.verdict import Verdict

_DEFAULT_SAMPLING = {"temperature": 0.0, "max_tokens": 1024}
_OURS = frozenset({"model", "messages", "response_format", "stream", "n"})
_SHOWN = frozenset({"asked", "cache_hits", "retries", "prompt_tokens", "completion_tokens"})
_NOT_SPENT = frozenset({"asked", "cache_hits", "failures"})
_TRIAL = {"question": "What is 1 + 1?", "gold": "2", "answer": "2"}


class Judge:
    """A score in [0, 1] that a chat model gives the final answer, images of the prompt in its sight.

    It abstains where there is no reference to show, and where a text is longer than `max_characters`. Without a verdict
    it fails; no score is made up.

    Args:
        base_url: of the endpoint, such as `http://127.0.0.1:8000/v1`.
        model: name of the model there.
        template: the question put to it, with `{question}`, `{gold}`, `{answer}` or any column of the data.
        images: show it the images of the prompt.
        api_key_variable: environment variable with the key.
        sampling: further fields of the request; replaces `{temperature: 0, max_tokens: 1024}`.
        structured: ask for the verdict by JSON schema, as long as the endpoint takes it.
        request_timeout_s: limit of one request.
        retries: further requests after one that failed in passing, or gave no verdict.
        first_wait_s: before the first of them, doubled each time.
        max_wait_s: longest wait before a retry.
        max_requests: under way at once.
        max_reply_bytes: of one reply.
        max_characters: of question, reference and answer together.
        cache: keep verdicts on disk: in the user's cache, in a folder given as an absolute path, or not at all (false).
        behind: a reward that decides first; the judge is asked only where it abstains.
        behind_args: arguments of that reward, if it is a class.
        behind_timeout_s: limit of one call of it; over it, the judge abstains as well.
        search: folders that `behind` is looked up in.

    Raises:
        ValueError: an argument cannot be used.
    """

    runs_in = "async"
    without_answer = 0.0

    def __init__(
        self,
        base_url: str,
        model: str,
        template: str = DEFAULT_TEMPLATE,
        images: bool = True,
        api_key_variable: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        structured: bool = True,
        request_timeout_s: float = 60.0,
        retries: int = 4,
        first_wait_s: float = 1.0,
        max_wait_s: float = 60.0,
        max_requests: int = 32,
        max_reply_bytes: int = 1 << 20,
        max_characters: int = 32_000,
        cache: bool | str = True,
        behind: str | None = None,
        behind_args: Mapping[str, Any] | None = None,
        behind_timeout_s: float = 1.0,
        search: Sequence[str] = (),
    ) -> None:
        _check_positive(request_timeout_s=request_timeout_s, max_requests=max_requests, max_reply_bytes=max_reply_bytes)
        _check_positive(first_wait_s=first_wait_s, max_wait_s=max_wait_s, behind_timeout_s=behind_timeout_s)
        if retries < 0:
            raise ValueError(f"retries must be at least 0, not {retries}")
        self._sampling = dict(_DEFAULT_SAMPLING if sampling is None else sampling)
        if taken := sorted(_OURS & self._sampling.keys()):
            raise ValueError(f"sampling: '{taken[0]}' is set by the judge itself; remove it")
        self._model = model
        self._template = Template(template)
        self._max_characters = max_characters
        self._retries = retries
        self._asker = Asker(
            Endpoint(
                url=_completions_url(base_url),
                api_key_variable=api_key_variable,
                timeout_s=request_timeout_s,
                max_reply_bytes=max_reply_bytes,
            ),
            model,
            sampling=self._sampling,
            structured=structured,
            patience=Patience(retries=retries, first_wait_s=first_wait_s, max_wait_s=max_wait_s),
            max_requests=max_requests,
        )
        self._cache = _cache(cache)
        self._flights = SingleFlight()
        self._meter = Meter()
        # The limit of a whole response, if the config sets no other: every request and every wait at its longest.
        self.timeout_s = behind_timeout_s + request_timeout_s * (retries + 1) + max_wait_s * retries
        self._rule = Rule(behind, behind_args or {}, search, behind_timeout_s) if behind is not None else None
        # What is asked for depends on template and rule; rewards are asked by the names of their parameters.
        self.__signature__ = _signature(self._template.names, images=images, rule=self._rule)

    async def __call__(self, **offered: Any) -> Score | None:
        """Grade one response. Parts: what the verdict cost; all 0 where the rule in front has decided."""
        if self._rule is not None:
            ruled = await self._rule.verdict(offered)
            if ruled.value is not None:
                return _score(ruled.value, Usage())
            if ruled.outcome is not Outcome.ABSTAIN:
                return None
        if offered["answer"] is None:  # the rule asked to be called nevertheless
            return _score(self.without_answer, Usage())
        question = self._question(offered)
        return None if question is None else await self._judged(question)

    def check(self) -> None:
        """Ask a trial question.

        Raises:
            PluginError: there is no verdict on it, or no place for the cache.
        """
        if self._cache is not None:
            try:
                self._cache.prepare()
            except OSError as error:
                raise PluginError(f"the judge's cache {self._cache.folder}: {error.strerror}; name another") from error
        trial = Question(
            template=self._template, values={name: _TRIAL.get(name, "none") for name in self._template.names}
        )
        asked = self._asker.ask(lambda: trial.messages(()), self._meter, retries=min(1, self._retries))
        # In a thread of its own, since a notebook's has a running event loop already.
        with ThreadPoolExecutor(1) as thread:
            try:
                thread.submit(asyncio.run, asked).result()
            except JudgeError as error:
                raise PluginError(
                    f"{error}; start it, or correct base_url, model or api_key_variable in the judge's args"
                ) from None

    @property
    def usage(self) -> Usage:
        """What it has cost so far, in this process."""
        return self._meter.total

    def _question(self, offered: Mapping[str, Any]) -> Question | None:
        """What to show; None where there is nothing to compare with, or too much to read."""
        values = {
            name: question_of(offered["prompt"]) if name == "question" else str(offered[name])
            for name in self._template.names
        }
        if not values.get("gold", "there is none in the template").strip():
            return None
        if sum(map(len, values.values())) > self._max_characters:
            return None
        return Question(template=self._template, values=values, images=tuple(offered.get("images") or ()))

    async def _judged(self, question: Question) -> Score:
        meter = Meter()
        meter.add(Usage(asked=1))
        try:
            verdict = await self._known_or_asked(question, meter)
        except JudgeError:
            meter.add(Usage(failures=1))
            raise
        finally:  # what was spent is counted, whatever came of it
            self._meter.add(meter.total)
        return _score(verdict.score, meter.total)

    async def _known_or_asked(self, question: Question, meter: Meter) -> Verdict:
        if self._cache is None:
            return await self._asked(question, meter)
        content = {"model": self._model, "sampling": self._sampling, **await question.content()}
        key = content_key(content)
        async with self._flights.turn(key):
            known = self._cache.get(key)
            if known is not None:
                meter.add(Usage(cache_hits=1))
                return known
            try:
                verdict = await self._asked(question, meter)
                self._keep(lambda cache: cache.put(key, verdict, self._model))
            finally:
                spent = {name: count for name, count in asdict(meter.total).items() if name not in _NOT_SPENT}
                self._keep(lambda cache: cache.note({"model": self._model, **spent}))
            return verdict

    async def _asked(self, question: Question, meter: Meter) -> Verdict:
        urls = await question.urls()
        return await self._asker.ask(lambda: question.messages(urls), meter)

    def _keep(self, write: Callable[[VerdictCache], None]) -> None:
        """Write to the cache. A full disk must not cost a verdict that is there."""
        assert self._cache is not None
        try:
            write(self._cache)
        except OSError as error:
            warnings.warn(f"the judge's cache {self._cache.folder} cannot be written: {error}", stacklevel=2)


def _score(value: float, usage: Usage) -> Score:
    return Score(value=value, parts={name: float(count) for name, count in asdict(usage).items() if name in _SHOWN})


def _signature(names: Set[str], *, images: bool, rule: Rule | None) -> inspect.Signature:
    """What a judge asks for: the template's names, the images, and what the rule in front of it wants."""
    required = {"prompt" if name == "question" else name for name in names} | (rule.required if rule else set())
    optional = (({"images"} if images else set()) | (rule.wanted if rule else set())) - required
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            *(inspect.Parameter(name, kind) for name in sorted(required)),
            *(inspect.Parameter(name, kind, default=None) for name in sorted(optional)),
        ]
    )


def _completions_url(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(f"base_url must be like http://127.0.0.1:8000/v1, not '{base_url}'")
    if url.userinfo:
        raise ValueError("base_url must not hold a name or password; name a variable in api_key_variable")
    return f"{str(url).rstrip('/')}/chat/completions"


def _cache(given: bool | str) -> VerdictCache | None:
    if isinstance(given, bool):
        return VerdictCache(default_folder()) if given else None
    folder = Path(given).expanduser()
    if not folder.is_absolute():
        raise ValueError(f"cache: '{given}' must be an absolute path, since workers run in other folders")
    return VerdictCache(folder)


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be above 0, not {number}")
