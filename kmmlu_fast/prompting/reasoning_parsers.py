"""Where a thought ends and the answer begins in a generated text: one parser for each way of marking it.

In: a chat template's text, or ``--reasoning-parser NAME``, in vLLM's names. Out: a ``ReasoningParser``, which
splits a text into thought and answer. An answer inside a thought is never taken for the answer: of several
thoughts the last one must be closed, where vLLM's parsers take what follows the first. Knows nothing of
tokenizers or messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.prompting.thoughts import DEFAULT_THOUGHT, THOUGHTS, Thought


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningParser:
    """One way of marking thoughts. ``closers`` stand right before the answer."""

    name: str
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    unmarked: bool = False  # whether the answer of a model that thinks may come without any mark
    always: bool = False  # the model thinks in every turn, unless the prompt starts its answer
    answer_marks: tuple[str, ...] = ()  # marks around the answer, which are not part of it
    finish: str = ""  # what ends a thought that was cut; "" for the closer on a line of its own

    @property
    def finishing_text(self) -> str:
        """What ends an unfinished thought, so that an answer can follow."""
        return self.finish or f"\n{self.closers[0]}\n"

    def find_answer(self, text: str, in_thought: bool = False) -> str | None:
        """The text without its thoughts; None if the last thought is not finished. ``in_thought``: the text
        continues a thought, or its model thinks first.
        """
        ends = [text.rfind(closer) + len(closer) for closer in self.closers if closer in text]
        start = max(ends, default=0)
        answer = text[start:]
        if any(opener in answer for opener in self.openers) or (in_thought and not start):
            return None
        for mark in self.answer_marks:
            answer = answer.replace(mark, "")
        return answer


def _tagged(name: str, thought: Thought = DEFAULT_THOUGHT, unmarked: bool = False) -> ReasoningParser:
    return ReasoningParser(name=name, openers=(thought.opener,), closers=(thought.closer,), unmarked=unmarked)


_THINK_NAMES = (
    *("deepseek_r1", "deepseek_v3", "deepseek_v4", "deepseek_v41", "ernie45", "glm45", "glm47", "holo2"),
    *("granite_thinking_parser", "hy_v3", "hy_v4", "kimi_k2", "ling3", "mimo", "minicpmv", "minimax_m2"),
    *("minimax_m2_append_think", "nemotron_v3", "poolside_v1", "qwen3", "step3", "step3p5"),
)
_ALL = [
    *(_tagged(name) for name in _THINK_NAMES),
    _tagged("olmo3", unmarked=True),
    _tagged("seed_oss", Thought("<seed:think>", "</seed:think>")),
    _tagged("mistral", Thought("[THINK]", "[/THINK]"), unmarked=True),
    _tagged("minimax_m3", Thought("<mm:think>", "</mm:think>"), unmarked=True),
    _tagged("plamo3", Thought("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>")),
    ReasoningParser(
        name="kimi_k3",
        openers=("<|open|>think<|sep|>",),
        closers=("<|close|>think<|sep|>",),
        answer_marks=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    ),
    *(
        ReasoningParser(
            name=name,
            openers=("<|START_THINKING|>",),
            closers=("<|END_THINKING|>",),
            unmarked=True,
            answer_marks=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        )
        for name in ("cohere_command3", "cohere_command4")
    ),
    ReasoningParser(name="gemma4", openers=("<|channel>thought",), closers=("<channel|>",), unmarked=True),
    ReasoningParser(
        name="granite",
        openers=("Here is my thought process:", "Here's my thought process:"),
        closers=("Here is my response:", "Here's my response:"),
        unmarked=True,
    ),
    ReasoningParser(
        name="hunyuan_a13b",
        openers=("<think>",),
        closers=("</think>",),
        unmarked=True,
        answer_marks=("<answer>", "</answer>"),
    ),
    ReasoningParser(
        name="openai_gptoss",
        openers=("<|channel|>analysis", "<|channel|>commentary"),
        closers=("<|channel|>final<|message|>",),
        always=True,
        answer_marks=("<|return|>", "<|end|>"),
        finish="<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    ReasoningParser(
        name="muse_glimmer",
        openers=("to=self<|message|>",),
        closers=("to=user<|message|>",),
        always=True,
        unmarked=True,
        answer_marks=("<|eom|>", "<|eot|>"),
        finish="<|eom|><|start|>assistant to=user<|message|>",
    ),
    ReasoningParser(
        name="inkling",
        openers=("<|content_thinking|>",),
        closers=("<|content_text|>",),
        always=True,
        unmarked=True,
        answer_marks=("<|end_message|>", "<|content_model_end_sampling|>"),
        finish="<|end_message|><|message_model|><|content_text|>",
    ),
]
PARSERS = {parser.name: parser for parser in _ALL}
# Of vLLM's names, those that no text alone can be read by, and why.
UNREADABLE = {
    "hf": "it reads its marks from the model's tokenizer_config.json, so name the parser of its family",
    "k2_horizon": "its marks depend on the effort of the request",
}
_PLAIN = [thought for thought in THOUGHTS if "|" not in thought.opener]
# For models whose template names no mark: whatever mark comes, an open thought is not the answer.
ANY_PARSER = ReasoningParser(
    name="",
    openers=tuple(thought.opener for thought in _PLAIN),
    closers=tuple(thought.closer for thought in _PLAIN),
)
# Told from a template's text: the first whose text stands in it. Families that mark thoughts alike are told
# apart for their name only.
_TEMPLATE_TEXTS = (
    ("<|channel|>analysis", "openai_gptoss"),
    ("to=self<|message|>", "muse_glimmer"),
    ("<|content_thinking|>", "inkling"),
    ("<|channel>thought", "gemma4"),
    ("<|START_THINKING|>", "cohere_command3"),
    ("[THINK]", "mistral"),
    ("<seed:think>", "seed_oss"),
    ("<mm:think>", "minimax_m3"),
    ("<|plamo:begin_think:plamo|>", "plamo3"),
    ("<|open|>think<|sep|>", "kimi_k3"),
    ("Here is my thought process:", "granite"),
)
_THINK_TEXTS = (
    ("<｜Assistant｜>", "deepseek_r1"),
    ("<answer>", "hunyuan_a13b"),
    ("[gMASK]", "glm45"),
    ("<|assistant|>\\n<think>", "glm45"),
    ("[|assistant|]", "deepseek_r1"),  # EXAONE
    ("truncate_history_thinking", "nemotron_v3"),
    ("enable_thinking", "qwen3"),
)


def find_parser(name: str) -> ReasoningParser:
    """The parser of that name. ConfigError if there is none."""
    if name in UNREADABLE:
        raise ConfigError(f"--reasoning-parser {name}: {UNREADABLE[name]}")
    if name not in PARSERS:
        raise ConfigError(
            f"--reasoning-parser {name}: no parser of that name; vLLM's are {', '.join(sorted(PARSERS))}"
        )
    return PARSERS[name]


def parser_faults(name: str) -> list[str]:
    """What is wrong with a parser's name; [] if nothing is."""
    try:
        find_parser(name)
    except ConfigError as error:
        return [str(error)]
    return []


def choose_parser(source: str, thought: Thought | None = None) -> ReasoningParser:
    """The parser of a chat template: of the thought that its prompt opens, else of the marks in its text."""
    named = _named_by_text(source)
    if thought is None or (named is not ANY_PARSER and thought.opener in named.openers):
        return named
    matching = (parser for parser in _ALL if any(thought.opener.startswith(text) for text in parser.openers))
    return next(matching, _tagged("", thought))


def _named_by_text(source: str) -> ReasoningParser:
    for text, name in _TEMPLATE_TEXTS:
        if text in source:
            return PARSERS[name]
    if "<think>" not in source and "</think>" not in source:
        return ANY_PARSER
    return PARSERS[next((name for text, name in _THINK_TEXTS if text in source), "deepseek_r1")]


def is_closed(parser: ReasoningParser, prompt: str) -> bool:
    """Whether a prompt's end has already finished or skipped its thought."""
    return any(closer in prompt for closer in parser.closers)


def strip_texts(text: str, texts: Iterable[str]) -> str:
    """``text`` without each of ``texts``."""
    for piece in texts:
        text = text.replace(piece, "")
    return text
