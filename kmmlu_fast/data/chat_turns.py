"""The turns of a conversation, as any of the usual tools writes them.

In: a list of messages ({role, content} or {from, value}) or of exchanges ({input, output} or [question,
answer]), also as JSON text. Out: ``Turn``s, and the keys of messages that nobody reads. DataError says which
message is wrong. Knows nothing of files, columns or templates.

Which of the assistant's turns are trained is said by the tools' own keys: ``weight`` 0 or 1 (OpenAI),
``train``/``training`` (axolotl), ``loss``/``loss_weight`` (ms-swift, LLaMA-Factory). By default all are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.option_cells import is_missing, open_json_text

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "ipython", "function_response"), "tool"),
}
_MASK_KEYS = ("weight", "train", "training", "loss", "loss_weight")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_READ_KEYS = frozenset(
    ("role", "from", "content", "value", "tool_calls", "function_call", "tool_call_id", "name", *_MASK_KEYS)
)
_HARMLESS_KEYS = frozenset(
    (
        "id",
        "index",
        "timestamp",
        "created_at",
        "model",
        "language",
        "lang",
        "source",
        "turn",
        "tokens",
        "refusal",
    )
)
_MASKING_KEYS = frozenset(("train_detail", "mask", "loss_mask", "labels"))
_MASK_VALUES = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a turn: the calls of an assistant's, or the name and call that a tool's turn answers."""

    calls: tuple[dict[str, Any], ...] = ()  # as templates take them: {"type", "function": {...}}
    name: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; ``role`` is system, user, assistant or tool."""

    role: str
    content: str
    trained: bool = True  # of the assistant's: whether its tokens are learned or only read
    reasoning: str | None = None  # the thought before the answer
    tool_use: ToolUse = ToolUse()

    @property
    def tool_calls(self) -> tuple[dict[str, Any], ...]:
        """The calls of an assistant's turn."""
        return self.tool_use.calls

    def to_message(self) -> dict[str, Any]:
        """The message that chat templates take."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_use.name is not None:
            message["name"] = self.tool_use.name
        if self.tool_use.call_id is not None:
            message["tool_call_id"] = self.tool_use.call_id
        return message

    @property
    def texts(self) -> list[str]:
        """All text of the turn."""
        calls = [all_strings(call["function"]) for call in self.tool_calls]
        return [text for text in (self.reasoning, self.content, *calls) if text]


@dataclass(slots=True)
class ParsedTurns:
    """Turns, and the names of messages' keys that were not read."""

    turns: list[Turn] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def all_strings(value: Any) -> str:
    """All strings inside a value, in order, one per line; texts that are JSON are opened."""
    value = open_json_text(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    texts = map(all_strings, value) if isinstance(value, (list, tuple)) else ()
    return "\n".join(filter(None, texts))


def holds_messages(value: Any) -> bool:
    """Whether the value is a list of messages, also as JSON text."""
    value = open_json_text(value)
    return (
        isinstance(value, Sequence)
        and bool(value)
        and all(isinstance(item, Mapping) and ("role" in item or "from" in item) for item in value)
    )


def parse_turns(value: Any, where: str) -> ParsedTurns:
    """The turns of a list of messages or exchanges."""
    value = open_json_text(value)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        what = "text that is not JSON" if isinstance(value, str) else type(value).__name__
        raise DataError(f"{where}: its messages are {what}, not a list of {{role, content}}")
    parsed = ParsedTurns()
    for place, item in enumerate(value, 1):
        item = open_json_text(item)
        if isinstance(item, Mapping) and ("role" in item or "from" in item):
            parsed.turns.append(_parse_message(item, place, where, parsed.unread))
        else:
            parsed.turns += _parse_exchange(item, place, where, parsed.unread)
    return parsed


def _parse_exchange(item: Any, place: int, where: str, unread: set[str]) -> list[Turn]:
    """The turns of [question, answer] or {system, input, output}."""
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
        question, answer = item
        system = None
    elif isinstance(item, Mapping) and "output" in item and ("input" in item or "instruction" in item):
        question, answer, system = (
            item.get("input", item.get("instruction")),
            item["output"],
            item.get("system"),
        )
        unread.update(str(name) for name in item.keys() - {"input", "instruction", "output", "system"})
    else:
        raise DataError(
            f"{where}: message {place} is {_describe_item(item)}, not an object with role and content"
        )
    turns = [] if is_missing(system) else [Turn("system", require_text(system, f"message {place}", where))]
    return [
        *turns,
        Turn("user", require_text(question, f"message {place}", where)),
        Turn("assistant", require_text(answer, f"message {place}", where)),
    ]


def _describe_item(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"an object with {', '.join(map(str, item)) or 'nothing'}"
    return type(item).__name__


def _parse_message(item: Mapping[Any, Any], place: int, where: str, unread: set[str]) -> Turn:
    given = item.get("role", item.get("from"))
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        raise DataError(
            f"{where}: message {place} has role {bounded_repr(given)}; allowed are {', '.join(ROLES)}"
        )
    name = f"message {place}"
    content = item.get("content", item.get("value"))
    calls = _parse_tool_calls(item, given, content, name, where)
    if given == "function_call" and calls:
        content = None
    text, thought = _parse_content(content, name, where, may_be_empty=bool(calls))
    reasoning = [key for key in _REASONING_KEYS if not is_missing(item.get(key))]
    if reasoning and role == "assistant":
        thought = require_text(item[reasoning[0]], f"{name}'s {reasoning[0]}", where)
        reasoning = reasoning[1:]
    rest = {str(key) for key, value in item.items() if not _is_empty(value)}
    rest -= _READ_KEYS | _HARMLESS_KEYS | (set() if reasoning else set(_REASONING_KEYS))
    refused = sorted(
        key for key in rest if key in _MASKING_KEYS or key.startswith(("image", "audio", "video"))
    )
    if refused:
        raise DataError(
            f"{where}: {name} has {refused[0]}, which changes what is trained and is not read; take it out,"
            " or leave such rows out"
        )
    unread.update(f"messages.{key}" for key in rest)
    return Turn(
        role,
        text,
        trained=_is_trained(item, role, name, where),
        reasoning=thought,
        tool_use=ToolUse(
            calls,
            None if is_missing(item.get("name")) else str(item["name"]),
            None if is_missing(item.get("tool_call_id")) else str(item["tool_call_id"]),
        ),
    )


def _is_empty(value: Any) -> bool:
    return not value if isinstance(value, (list, dict, tuple)) else is_missing(value)


def _is_trained(item: Mapping[Any, Any], role: str, name: str, where: str) -> bool:
    """What the message's keys say about learning it."""
    given = {key: item[key] for key in _MASK_KEYS if not is_missing(item.get(key))}
    wanted = set()
    for key, value in given.items():
        known = value.strip().lower() if isinstance(value, str) else value
        if known not in _MASK_VALUES:
            raise DataError(
                f"{where}: {name} has {key} {bounded_repr(value)}; only 0 and 1 (false and true) are read: a"
                " turn is learned, or only read"
            )
        wanted.add(_MASK_VALUES[known])
    if len(wanted) > 1:
        raise DataError(f"{where}: {name} says both that it is learned and that it is not ({given})")
    if role != "assistant" and True in wanted and not given.keys() <= {"weight", "loss_weight"}:
        raise DataError(
            f"{where}: {name} is the {role}'s and is marked as learned ({', '.join(given)}); only the"
            " assistant's turns are trained here"
        )
    return wanted != {False}


def _parse_content(content: Any, name: str, where: str, may_be_empty: bool) -> tuple[str, str | None]:
    """(text, thought) of a message's content: a text, or a list of parts."""
    if not isinstance(content, (list, tuple)):
        if may_be_empty and is_missing(content):
            return "", None
        return require_text(content, name, where), None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning") and isinstance(part.get(kind, part.get("text")), str):
            thoughts.append(part.get(kind, part.get("text")))
        else:
            raise DataError(
                f"{where}: {name} has a part of type {bounded_repr(kind)}, which is not trained here: only"
                " text is; take such rows out"
            )
    text = "\n".join(texts)
    if not text.strip() and not may_be_empty:
        raise DataError(f"{where}: {name} is empty")
    return text, "\n".join(thoughts) or None


def _parse_tool_calls(
    item: Mapping[Any, Any], given: Any, content: Any, name: str, where: str
) -> tuple[dict[str, Any], ...]:
    """The calls of an assistant's turn in the form that templates take, their arguments as an object."""
    calls = item.get("tool_calls")
    if _is_empty(calls):
        calls = item.get("function_call") if not _is_empty(item.get("function_call")) else None
        if given == "function_call":
            calls = content
    if _is_empty(calls):
        return ()
    calls = open_json_text(calls)
    parsed = []
    for call in [calls] if isinstance(calls, Mapping) else calls if isinstance(calls, Sequence) else [None]:
        function = open_json_text(call.get("function", call)) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise DataError(
                f"{where}: {name} has a tool call that is not {{function: {{name, arguments}}}}; correct it"
            )
        arguments = open_json_text(function.get("arguments", {}))
        known = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
        if isinstance(call, Mapping) and not is_missing(call.get("id")):
            known["id"] = call["id"]
        parsed.append(known)
    return tuple(parsed)


def parse_tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """The tools that a row offers, as templates take them."""
    tools = open_json_text(value)
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise DataError(f"{where}: tools is {type(tools).__name__}, not a list of functions")
    tools = [open_json_text(tool) for tool in tools]
    if bad := next((tool for tool in tools if not isinstance(tool, Mapping)), None):
        raise DataError(f"{where}: tools holds {bounded_repr(bad)}, not an object with a name")
    return tuple(dict(tool) for tool in tools)


def require_text(value: Any, name: str, where: str) -> str:
    """The text; DataError if it is none, or empty."""
    if is_missing(value):
        raise DataError(f"{where}: {name} is empty")
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {type(value).__name__}, not text")
    return value


def check_turns(turns: Sequence[Turn], where: str) -> tuple[Turn, ...]:
    """The turns if they are a conversation that ends with the assistant and has a turn to learn."""
    roles = [turn.role for turn in turns]
    if "system" in roles[1:]:
        raise DataError(f"{where}: has a system message after the first; only the first may be one")
    spoken = roles[1:] if roles[0] == "system" else roles
    if not spoken or spoken[0] != "user" or any(not _may_follow(a, b) for a, b in pairwise(spoken)):
        raise DataError(
            f"{where}: user and assistant must alternate, the user first; its roles are {', '.join(roles)}"
        )
    if roles[-1] != "assistant":
        raise DataError(
            f"{where}: ends with the {roles[-1]}'s message; the last must be the assistant's (trained on)"
        )
    if not any(turn.trained for turn in turns if turn.role == "assistant"):
        raise DataError(f"{where}: none of its assistant's turns is learned (weight 0); nothing to train on")
    return tuple(turns)


def _may_follow(earlier: str, later: str) -> bool:
    if later == "tool":
        return earlier in ("assistant", "tool")
    return earlier != later


def learn_last_turn_only(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """The turns with only the last of the assistant's learned turns still learned."""
    turns = tuple(turns)
    learned = [place for place, turn in enumerate(turns) if turn.role == "assistant" and turn.trained]
    return tuple(
        replace(turn, trained=False) if place in learned[:-1] else turn for place, turn in enumerate(turns)
    )
