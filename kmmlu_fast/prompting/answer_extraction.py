"""The ladder of rules that read an answer from a generated text.

In: a text and the question's options. Out: an ``ExtractedAnswer``: the letter the text settles on, and the
rung that read it. Knows nothing of prompts, engines or scores.

Rungs are tried from strict to lenient; the first that reads a letter decides. Within a rung the last
statement wins.

    final_line      the requested last line, with nothing else on it: ``정답: B``
    boxed           ``\\boxed{B}``
    stated          a label named as the answer: ``정답은 ②번``, ``the answer is B``, ``B를 선택한다``
    stated_option   the same, with the option's text instead of its label: ``정답은 대차대조표입니다``
    bold            a bold label in the last line: ``**B. 대차대조표**``
    label_line      a line with only a label, or a label and its option's text, if no line names another
    concluded       the only label that the last sentence asserts: ``(A)가 아니라 (B)입니다``
    closing_option  the only option whose text the last sentence asserts

``option_labels`` defines what a label is and what denies one. A text that no rung reads stays unread:
a forced answer is better than an invented one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.prompting.option_labels import FREE, MARKUP, PUNCTUATION, AnswerText, Options
from kmmlu_fast.prompting.reasoning_parsers import ANY_PARSER, ReasoningParser


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """``letter`` and the ``rung`` that read it; both None if the text could not be read."""

    letter: str | None
    rung: str | None


_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}\n]|\{[^{}\n]*\}){1,120})\}")
# Followed by a colon, bold text heads a paragraph about that option.
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*(?!\s?[:\-–])")

_NAMED = re.compile(
    r"""(?:이|가|은|는)\s(?:(?:바로|가장|최종|올바른|맞는|옳은|적절한|이\s?문제의)\s)*(?:정답|답)
          (?!\s?(?:이|은|는)?\s?아[니닌닙님]) (?:$|\n|[.!]|이|입|임|으로|일\s?것|인\s?것)
      | (?:을|를|로|으로)\s(?:(?:정답으로|답으로|최종)\s)*(?:선택|고[르른를릅]|골라|골랐|택)
          (?!\S{0,4}\s?(?:않|없)) (?!하면|할\s?수\s?(?:있|없))""",
    re.VERBOSE,
)
_ASSERTED = re.compile(
    r"\s?(?:입니|이다|임(?![가-힣])|이며|이고|이므|예요|이에요|이죠|(?:이|가)\s?[된됩]|에\s?해당|이라고\s?할|[.!]?\s*$)"
)
# A bare letter is the conclusion only after these words; after a noun it is part of a name (비타민 C이다).
_BEFORE_BARE = re.compile(
    r"(?:^|[,:∴]|은|는|건|따라서|그러므로|그래서|즉|결국|보기|선택지|옵션|아니라|아니고|중|중에서|결론적으로)\s?$"
)


def _sole_label(view: AnswerText, text: str) -> str | None:
    """The letter if ``text`` holds only a label, or only a label and that option's own text."""
    text = text.strip().strip("-•> ")
    label = view.label_at(text, 0)
    if not label:
        return None
    letter, end = label
    rest = text[end:].strip(PUNCTUATION)
    return letter if not rest or rest == view.options.get(letter) else None


def _only_letter(letters: set[str]) -> str | None:
    return letters.pop() if len(letters) == 1 else None


def _read_final_line(view: AnswerText) -> str | None:
    match = view.labelling.final_line.fullmatch(view.lines[-1]) if view.lines else None
    return match[1] if match else None


def _read_boxed_label(view: AnswerText) -> str | None:
    boxes = _BOXED.findall(view.text)
    return _sole_label(view, MARKUP.sub("", boxes[-1])) if boxes else None


def _read_stated_label(view: AnswerText) -> str | None:
    """The letter of the last statement, whether it names the answer before or after the label."""
    statements: list[tuple[int, str]] = []  # position, letter
    for match in view.labelling.marker.finditer(view.plain):
        if label := view.label_at(view.plain, match.end()):
            statements.append((match.end(), label[0]))
    for match in _NAMED.finditer(view.plain):
        begin = max(view.plain.rfind("\n", 0, match.start()) + 1, match.start() - 120)
        labels = view.find_labels(view.plain[begin : match.end()])
        before = [letter for letter, _, end in labels if begin + end <= match.start()]
        if before:
            statements.append((match.start(), before[-1]))
    return max(statements)[1] if statements else None


def _read_stated_option(view: AnswerText) -> str | None:
    markers = view.labelling.marker.finditer(view.plain)
    options = [view.option_at(view.plain, match.end()) for match in markers]
    letters = [option[0] for option in options if option]
    return letters[-1] if letters else None


def _read_bold_label(view: AnswerText) -> str | None:
    lines = [line for line in view.text.splitlines() if line.strip()]
    bold_texts = _BOLD.findall(lines[-1]) if lines else []
    labels = [view.label_at(text.strip(), 0) for text in bold_texts]
    return _only_letter({label[0] for label in labels if label})


def _read_label_line(view: AnswerText) -> str | None:
    letters = [_sole_label(view, line) for line in view.lines]
    return _only_letter({letter for letter in letters if letter})


def _read_concluded_label(view: AnswerText) -> str | None:
    sentence = view.last_sentence
    letters = {
        letter
        for letter, start, end in view.find_labels(sentence)
        if (sentence[start] not in OPTION_LETTERS or _BEFORE_BARE.search(sentence[:start]))
        and _ASSERTED.match(sentence, view.end_of_own_option(letter, sentence, end))
    }
    if "오답" in sentence or _sole_label(view, sentence):
        return None
    return _only_letter(letters)


def _read_closing_option(view: AnswerText) -> str | None:
    sentence, letters, position = view.last_sentence, set(), 0
    while position < len(sentence):
        option = view.option_at(sentence, position) if FREE.match(sentence, position) else None
        if option is None:
            position += 1
            continue
        letter, position = option
        if len(view.options[letter]) > 1 and _ASSERTED.match(sentence, position):
            letters.add(letter)
    return None if _sole_label(view, sentence) else _only_letter(letters)


ExtractionRule = Callable[[AnswerText], str | None]
LADDER: dict[str, ExtractionRule] = {
    "final_line": _read_final_line,
    "boxed": _read_boxed_label,
    "stated": _read_stated_label,
    "stated_option": _read_stated_option,
    "bold": _read_bold_label,
    "label_line": _read_label_line,
    "concluded": _read_concluded_label,
    "closing_option": _read_closing_option,
}
STRICT = ("final_line",)
# These name the answer as such, so they count even in a text cut off by its token budget.
EXPLICIT = ("final_line", "boxed", "stated", "stated_option")


def extract_answer(
    text: str,
    options: Options | None = None,
    *,
    parser: ReasoningParser = ANY_PARSER,
    in_thought: bool = False,
    ladder: dict[str, ExtractionRule] | None = None,
) -> ExtractedAnswer:
    """The letter that ``text`` settles on. ``options`` (A first) are needed to read an option's text.

    Only the text outside of its thoughts is read. With ``in_thought``, a text that closes none has not
    finished thinking and reads as nothing.
    """
    answer = parser.find_answer(text, in_thought)
    if answer is None:
        return ExtractedAnswer(None, None)
    view = AnswerText(answer, options)
    for name, rung in (LADDER if ladder is None else ladder).items():
        letter = rung(view)
        if letter is not None:
            return ExtractedAnswer(letter, name)
    return ExtractedAnswer(None, None)
