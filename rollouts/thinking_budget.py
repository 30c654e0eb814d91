"""Thinking budgets: a thought that has used its tokens up is closed by force, and the answer follows.

What is forced is what the chat template writes between a thought and its answer (budget forcing, s1, arXiv 2501.19393,
section 3.1; Qwen3, arXiv 2505.09388, section 4.3), so that with a budget of 0 the model reads the prompt of a mode
without thought, where the template has one. Forced tokens were not sampled: nothing may be learned from them.
"""

from __future__ import annotations

from collections import deque

from hybrid_rl.chat_format import TemplateChatFormat
from hybrid_rl.errors import ConfigError
from hybrid_rl.records import Request


class Budgets:
    """Makes the budgets of responses; knows what closes a thought in each mode."""

    def __init__(self, chat: TemplateChatFormat) -> None:
        self._chat = chat
        self._closing: dict[str, tuple[int, ...]] = {}
        self._texts: dict[int, str] = {}

    def of(self, request: Request) -> ThinkingBudget | None:
        """The budget of a request; None if it has none.

        Raises:
            ConfigError: the mode has no thought that could be closed.
        """
        if request.max_think_tokens is None:
            return None
        if self._chat.thought(request.mode) == "closed":
            raise ConfigError(f"mode {request.mode} has no thought; remove modes.kinds.{request.mode}.max_think_tokens")
        if request.mode not in self._closing:
            self._closing[request.mode] = self._chat.encode(self._chat.closing_text(request.mode))
        return ThinkingBudget(self, request, self._closing[request.mode], self._chat.beginning(request.mode))

    @property
    def tags(self) -> tuple[str, str]:
        return self._chat.thought_tags

    def text(self, token: int) -> str:
        """The text of a token; a tag is plain text, so that pieces of other characters do not matter."""
        if token not in self._texts:
            self._texts[token] = self._chat.decode([token])
        return self._texts[token]


class ThinkingBudget:
    """Follows one response, and says which token comes next by force.

    Args:
        closing: ids that close a thought and lead over to the answer.
        beginning: what the prompt puts at the beginning of the turn, and the mode token. The tokens behind it are
            what is followed.
    """

    def __init__(self, budgets: Budgets, request: Request, closing: tuple[int, ...], beginning: str) -> None:
        assert request.max_think_tokens is not None
        self._budgets = budgets
        self._limit = request.max_think_tokens
        self._closing = closing
        self._open_tag, self._close_tag = budgets.tags
        self._recent = beginning
        self._thinking = beginning.rfind(self._open_tag) > beginning.rfind(self._close_tag)
        self._thought: list[int] = []
        self._pending: deque[int] = deque()
        self.closed_by_force = False
        """The thought has used its budget up."""
        self._check()

    def forced(self) -> int | None:
        """The token that comes next; None where it is sampled."""
        return self._pending[0] if self._pending else None

    def add(self, token: int) -> None:
        """A token has come, forced or sampled."""
        if self._pending:
            self._pending.popleft()
            return
        # Long enough for a tag in pieces, and never the whole response.
        longest = max(len(self._open_tag), len(self._close_tag))
        self._recent = self._recent[-longest:] + self._budgets.text(token)
        if self._thinking:
            if self._close_tag in self._recent:
                self._thinking = False
                self._recent = self._recent.rpartition(self._close_tag)[2]
            else:
                self._thought.append(token)
        elif self._open_tag in self._recent:
            self._thinking = True
            self._recent = self._recent.rpartition(self._open_tag)[2]
            self._thought.clear()
        self._check()

    def _check(self) -> None:
        if not self._thinking or len(self._thought) < self._limit:
            return
        self._pending.extend(self._closing[self._begun() :])
        self._thinking = False
        self._recent = ""
        self.closed_by_force = True

    def _begun(self) -> int:
        """How many of the closing ids the thought has ended with already, such as its last line break."""
        fits = (n for n in range(len(self._closing) - 1, 0, -1) if tuple(self._thought[-n:]) == self._closing[:n])
        return next(fits, 0)
