"""The one rule by which conversations become text, for evaluation, exams in training, chats, held-out rows.

In: a tokenizer and ``TemplateOptions`` (another template, variables). Out: a ``ChatTemplate``, whose facts
were found by rendering invented turns, not by reading its source:

    content_parts   the template shows a text only as a list of parts, as templates of models with images do
    folds_system    it refuses or drops a system turn: the text stands at the start of the first user turn
    lead            what it writes between the generation prompt and an answer: the end of a thought, a
                    channel, a header. An answer that is scored or trained stands after it
    delimiter       the spaces before an answer, part of its first token
    closing         what it writes after an answer
    thought         the thought that its generation prompt leaves open

A template in which the question or the instruction cannot be made to stand is refused. Knows nothing of
questions, models or engines; limits on a template's work are in ``template_sandbox``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.prompting.template_limits import TemplateRenderingError
from kmmlu_fast.prompting.template_sandbox import TEMPLATE_DATE, CompiledTemplate, compile_template
from kmmlu_fast.prompting.thoughts import (
    SWITCHES,
    Thought,
    find_open_thought,
    find_switch,
    thinking_values,
)

Message = Mapping[str, Any]
_SYSTEM, _USER, _ANSWER, _SECOND = "KMSYSTEMKM", "KMQUESTIONKM", "KMANSWERKM", "KMSECONDKM"
_DATE = "KMDATEKM"

PLAIN_NAME = "plain"
BUILT_IN = {
    # For base models: headings instead of special tokens, closed by the tokenizer's end token.
    PLAIN_NAME: (
        "{{ bos_token }}{% for m in messages %}"
        "{{ {'system': '### 지시\n', 'user': '### 질문\n', 'assistant': '### 답변\n'}[m['role']] +"
        " m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### 답변\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateOptions:
    """What is asked of a template. ``source`` None: the tokenizer's own; ``origin`` names it in messages."""

    source: str | None = None
    origin: str = "the model's chat template"
    variables: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint_parts(self) -> dict[str, Any]:
        """What differs from the tokenizer's own template and its defaults; {} if nothing does."""
        parts: dict[str, Any] = {}
        if self.source is not None:
            parts["chat_template"] = text_digest(self.source)
        if self.variables:
            parts["chat_template_kwargs"] = dict(self.variables)
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A template and what was found out about it. Made by ``open_chat_template``."""

    compiled: CompiledTemplate
    origin: str
    variables: Mapping[str, Any]  # special tokens, switches, and what the user gave
    content_parts: bool = False
    folds_system: bool = False
    keeps_answers: bool = True
    lead: str = ""
    delimiter: str = ""
    closing: str = ""
    never_generates: bool = (
        False  # the template has no generation prompt; ``lead`` opens the turn in its place
    )
    always_generates: bool = False  # the generation prompt stands after every conversation
    thought: Thought | None = None
    reads_date: bool = False  # writes today's date where the instruction is a system turn, as in evaluation

    @property
    def is_thinking(self) -> bool:
        """Whether the model thinks first: a thought is open in the prompt, or a known switch is on."""
        is_on = any(
            self.variables.get(name) == value and name in self.compiled.variables
            for name, value in SWITCHES.items()
        )
        return self.thought is not None or is_on

    @property
    def date(self) -> str:
        """The fixed date that the template is given as today's."""
        return f"{TEMPLATE_DATE:%Y-%m-%d}"

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation; TemplateRenderingError if the template refuses it."""
        prepared = fold_system_turn(messages) if self.folds_system else messages
        if self.content_parts:
            prepared = [_with_parts(message) for message in prepared]
        return self.compiled.render(prepared, self.variables, add_generation_prompt=add_generation_prompt)

    def render_prompt(self, messages: Sequence[Message]) -> str:
        """The text after which the model writes its turn, thinking first if the template opens a thought."""
        return self.render(messages, add_generation_prompt=True)

    def render_reasoning_prompt(self, messages: Sequence[Message]) -> str:
        """The text after which the model writes what it likes: its turn is open, and a thought may be."""
        return self.render_prompt(messages) + (self.lead if self.never_generates else "")

    def render_answer_prompt(self, messages: Sequence[Message]) -> str:
        """The text after which the answer itself stands, with ``delimiter`` between the two."""
        return self.render_prompt(messages) + self.lead

    def notes(self, reasoning: bool = False) -> list[str]:
        """What is done to the turns or the prompt, one sentence each. ``reasoning``: as the model writes what
        it likes after the prompt.
        """
        notes = []
        if self.folds_system:
            notes.append(
                f"{self.origin} shows no system turn: its text stands at the start of the first user turn"
            )
        if self.content_parts:
            notes.append(f"{self.origin} takes content as parts: texts are given as such")
        if self.reads_date:
            notes.append(f"{self.origin} writes today's date: it is always given {self.date}")
        if self.lead and (self.never_generates or not reasoning):
            what = "closed without a thought" if self.thought else "continued"
            notes.append(
                f"the prompt of {self.origin} is {what} before the answer, with {self.lead!r}, as after its"
                " own assistant turns"
            )
        return notes

    def facts(self) -> dict[str, Any]:
        """What changes its text against plain rendering with thinking off; {} if nothing does."""
        facts: dict[str, Any] = {
            "content_parts": self.content_parts,
            "folds_system": self.folds_system,
            "lead": self.lead,
            "delimiter": self.delimiter,
            "date": self.date if self.reads_date else "",
            "always_generates": self.always_generates,
            "switches": sorted(SWITCHES.keys() & self.compiled.variables & self.variables.keys()),
        }
        return {name: value for name, value in facts.items() if value}


def fold_system_turn(messages: Sequence[Message]) -> list[Message]:
    """The messages with the text of a leading system turn at the start of the first user turn."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return list(messages)
    text = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": text}, *messages[2:]]


def _with_parts(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}


def template_source(tokenizer: Any) -> str | None:
    """The tokenizer's own template (of several, the one called ``default``); None if it has none."""
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, Mapping):
        own = own.get("default")
    return own if isinstance(own, str) and own else None


def open_chat_template(
    tokenizer: Any, options: TemplateOptions | None = None, *, thinking: bool = False
) -> ChatTemplate:
    """The template, tried on invented turns. ConfigError if there is none, or if it does not show the
    question, or if a variable that was given is not read.
    """
    options = options or TemplateOptions()
    source = options.source or template_source(tokenizer)
    if source is None:
        raise ConfigError(
            "--prompt-style chat needs a model with a chat template; this one has none: use --prompt-style"
            " lm-eval or qa, or give --chat-template FILE"
        )
    try:
        compiled = compile_template(source)
    except TemplateRenderingError as error:
        raise ConfigError(f"{options.origin} {error}; give another with --chat-template FILE") from error
    _check_variables(compiled, options, thinking)
    variables = {"enable_thinking": thinking, **options.variables}
    if thinking and find_switch(compiled.variables, options.variables) not in (None, "enable_thinking"):
        variables |= thinking_values(compiled.variables, options.variables, True)
    variables = {**tokenizer.special_tokens_map, **variables}
    chat = _probe(ChatTemplate(compiled=compiled, origin=options.origin, variables=variables))
    if chat.thought and not thinking:
        off = thinking_values(compiled.variables, options.variables, False)
        switched = _probe(
            ChatTemplate(compiled=compiled, origin=options.origin, variables={**variables, **off})
        )
        if switched.thought is None:
            return switched
    return chat


def _check_variables(compiled: CompiledTemplate, options: TemplateOptions, thinking: bool) -> None:
    readable = sorted(
        compiled.variables
        - {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "range", "namespace"}
    )
    those = f"it reads {', '.join(readable)}" if readable else "it reads none"
    unread = [name for name in options.variables if name not in compiled.variables]
    if unread:
        raise ConfigError(
            f"--chat-template-kwargs {unread[0]}: {options.origin} reads no variable of that name; {those}"
        )
    if not thinking:
        return
    switch = find_switch(compiled.variables)
    if switch is None:
        raise ConfigError(
            f"--thinking needs a chat template with a switch such as enable_thinking; {options.origin} has"
            f" none that is known ({those}): give it as --chat-template-kwargs NAME=VALUE, or leave the flag"
            " out"
        )
    value = options.variables.get(switch, SWITCHES[switch])
    if value != SWITCHES[switch]:
        raise ConfigError(f"--thinking and --chat-template-kwargs {switch}={value} contradict each other")


_S = {"role": "system", "content": _SYSTEM}
_U = {"role": "user", "content": _USER}
_A = {"role": "assistant", "content": _ANSWER}


def _probe(chat: ChatTemplate) -> ChatTemplate:
    """The template with its facts. The forms of turns are tried from the plain one on."""
    problem = ""
    for fold, parts in ((False, False), (False, True), (True, False), (True, True)):
        tried = replace(chat, content_parts=parts, folds_system=fold)
        problem_here = _find_problem(tried)
        if not problem_here:
            return replace(_probe_answer(tried), reads_date=_shows_date(tried))
        problem = problem or problem_here
    raise ConfigError(
        f"{chat.origin} {problem}; use --prompt-style lm-eval or qa, or give another with --chat-template"
        " FILE"
    )


def _find_problem(chat: ChatTemplate) -> str:
    """Why a system and a user turn cannot be asked in this form; "" if they can."""
    try:
        text = chat.render_prompt([_S, _U])
        again = chat.render_prompt([_S, _U])
    except TemplateRenderingError as error:
        return f"refuses a system and a user turn ({error})"
    if text != again:
        return "writes another text each time"
    if "'type'" in text or '"type"' in text:
        return "shows a list of parts as Python or JSON"
    missing = [name for name, mark in (("instruction", _SYSTEM), ("question", _USER)) if mark not in text]
    return f"leaves out the {' and the '.join(missing)}" if missing else ""


def _shows_date(chat: ChatTemplate) -> bool:
    """Whether a date of today would stand in a question's prompt."""
    if "strftime_now" not in chat.compiled.source:
        return False
    marked = replace(chat, variables={**chat.variables, "strftime_now": lambda form: _DATE})
    try:
        return _DATE in marked.render_prompt([_S, _U])
    except TemplateRenderingError:  # it takes the date apart
        return True


def _probe_answer(chat: ChatTemplate) -> ChatTemplate:
    """Lead, delimiter, closing and open thought, from an assistant turn that the template itself writes."""
    prompt = chat.render_prompt([_U])
    tail = prompt[prompt.rfind(_USER) :]
    try:
        whole = chat.render([_U, _A])
    except TemplateRenderingError:
        whole = ""
    place = whole.rfind(_ANSWER)
    if place < 0:
        return replace(chat, keeps_answers=False, thought=find_open_thought(tail))
    before, closing = whole[:place], whole[place + len(_ANSWER) :]
    extra, thought = "", find_open_thought(tail, before[before.rfind(_USER) :])
    if before.startswith(prompt):
        extra = before[len(prompt) :]
        if find_open_thought(tail + extra):
            extra = thought.closing_text if thought else ""
    elif thought:
        extra = thought.closing_text.lstrip("\n") if prompt.endswith("\n\n") else thought.closing_text
    lead = extra.rstrip(" ")
    return replace(
        chat,
        lead=lead,
        delimiter=extra[len(lead) :],
        closing=closing,
        never_generates=bool(extra) and not thought and prompt == chat.render([_U]),
        always_generates=not extra and prompt == chat.render([_U]),
        thought=thought,
    )


def is_same_rendering(tokenizer: Any, one: TemplateOptions, other: TemplateOptions) -> bool:
    """Whether both write the same text for invented conversations. A template that cannot be used is like no
    other.
    """
    if one.source == other.source and one.variables == other.variables:
        return True
    second = {"role": "user", "content": _SECOND}
    texts = []
    for options in (one, other):
        try:
            chat = open_chat_template(tokenizer, options)
            texts.append(
                [
                    chat.render_answer_prompt([_S, _U]),
                    chat.render([_U, _A]),
                    chat.render_prompt([_U, _A, second]),
                ]
            )
        except (ConfigError, TemplateRenderingError):
            return False
    return texts[0] == texts[1]


class ChatTokenizer:
    """A tokenizer with the template that its conversations are rendered by; all else is the tokenizer's."""

    def __init__(self, tokenizer: Any, options: TemplateOptions) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.opened: dict[bool, ChatTemplate] = {}  # by ``thinking``

    @property
    def chat_template(self) -> str | None:
        """The template in use."""
        return self.options.source or template_source(self.tokenizer)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tokenizer":
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


def find_chat_template(tokenizer: Any, *, thinking: bool = False) -> ChatTemplate:
    """The template of a tokenizer: the chosen one of a ``ChatTokenizer``, else its own with no options.
    ConfigError as for ``open_chat_template``.
    """
    if isinstance(tokenizer, ChatTokenizer):
        if thinking not in tokenizer.opened:
            tokenizer.opened[thinking] = open_chat_template(
                tokenizer.tokenizer, tokenizer.options, thinking=thinking
            )
        return tokenizer.opened[thinking]
    tokens = tuple(sorted(tokenizer.special_tokens_map.items())) if template_source(tokenizer) else ()
    return _open_own_template(_Own(template_source(tokenizer), dict(tokens)), repr(tokens), thinking)


@dataclass(frozen=True, slots=True)
class _Own:
    """What a template needs of a tokenizer; equal if the template is."""

    chat_template: str | None
    special_tokens_map: dict[str, Any] = field(compare=False)


@functools.lru_cache(maxsize=16)
def _open_own_template(own: _Own, tokens: str, thinking: bool) -> ChatTemplate:
    return open_chat_template(own, thinking=thinking)
