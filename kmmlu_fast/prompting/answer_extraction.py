"""The answer-reading ladder: a generated text in, the letter it settles on (or none) and the rung that read
it out.

Rungs are tried from strict to lenient; the first that reads something decides. Within a rung the last
statement wins.

    final_line      the asked-for last line and nothing else on it: ``정답: B``
    boxed           ``\\boxed{B}``
    stated          an answer named as such: ``정답은 ②번``, ``답: (B)``, ``the answer is B``, ``B가 정답``, ``B를 선택한다``
    stated_option   the same with the option's text in the letter's place: ``정답은 대차대조표입니다``
    bold            a bold label in the last line: ``**B. 대차대조표**``
    label_line      a line that is a label, alone or with that option's own text, where no line names another one
    concluded       the one label that the last sentence asserts: ``(A)가 아니라 (B)입니다``
    closing_option  the one option whose text the last sentence asserts

What a label is, and what denies one, ``labels`` says. What cannot be read stays unread: a forced answer is
better than an invented one.

Knows nothing of prompts, engines or scores.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.prompting.option_labels import FREE, MARKUP, PUNCTUATION, AnswerText, Options


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """``letter`` and the ``rung`` that read it; both None where nothing could be read."""

    letter: str | None
    rung: str | None


_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}\n]|\{[^{}\n]*\}){1,120})\}")
_BOLD = re.compile(
    r"\*\*([^*\n]{1,200})\*\*(?!\s?[:\-–])"
)  # with a colon it heads a paragraph about that option

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
# A bare letter is the conclusion only after such words; after a noun it is part of a name (비타민 C이다).
_BEFORE_BARE = re.compile(
    r"(?:^|[,:∴]|은|는|건|따라서|그러므로|그래서|즉|결국|보기|선택지|옵션|아니라|아니고|중|중에서|결론적으로)\s?$"
)


def _sole_label(view: AnswerText, text: str) -> str | None:
    """The letter where ``text`` is a label and nothing else, or a label and that option's own text."""
    text = text.strip().strip("-•> ")
    found = view.label_at(text, 0)
    if not found:
        return None
    rest = text[found[1] :].strip(PUNCTUATION)
    own = view.options.get(found[0])
    return found[0] if not rest or rest == own else None


def _read_final_line(view: AnswerText) -> str | None:
    match = view.labelling.final_line.fullmatch(view.lines[-1]) if view.lines else None
    return match[1] if match else None


def _read_boxed_label(view: AnswerText) -> str | None:
    boxes = _BOXED.findall(view.text)
    return _sole_label(view, MARKUP.sub("", boxes[-1])) if boxes else None


def _read_stated_label(view: AnswerText) -> str | None:
    """The last of all answers named as such, before or after the label."""
    found = [
        (match.end(), at[0])
        for match in view.labelling.marker.finditer(view.plain)
        if (at := view.label_at(view.plain, match.end()))
    ]
    for match in _NAMED.finditer(view.plain):
        begin = max(view.plain.rfind("\n", 0, match.start()) + 1, match.start() - 120)
        before = [
            letter
            for letter, _, end in view.find_labels(view.plain[begin : match.end()])
            if begin + end <= match.start()
        ]
        if before:
            found.append((match.start(), before[-1]))
    return max(found)[1] if found else None


def _read_stated_option(view: AnswerText) -> str | None:
    found = [
        at[0]
        for match in view.labelling.marker.finditer(view.plain)
        if (at := view.option_at(view.plain, match.end()))
    ]
    return found[-1] if found else None


def _read_bold_label(view: AnswerText) -> str | None:
    lines = [line for line in view.text.splitlines() if line.strip()]
    letters = {
        found[0]
        for bold in _BOLD.findall(lines[-1] if lines else "")
        if (found := view.label_at(bold.strip(), 0))
    }
    return letters.pop() if len(letters) == 1 else None


def _read_label_line(view: AnswerText) -> str | None:
    letters = {letter for line in view.lines if (letter := _sole_label(view, line))}
    return letters.pop() if len(letters) == 1 else None


def _read_concluded_label(view: AnswerText) -> str | None:
    sentence = view.last_sentence
    letters = {
        letter
        for letter, start, end in view.find_labels(sentence)
        if (sentence[start] not in OPTION_LETTERS or _BEFORE_BARE.search(sentence[:start]))
        and _ASSERTED.match(sentence, view.end_of_own_option(letter, sentence, end))
    }
    return (
        letters.pop()
        if len(letters) == 1 and "오답" not in sentence and not _sole_label(view, sentence)
        else None
    )


def _read_closing_option(view: AnswerText) -> str | None:
    sentence, letters, position = view.last_sentence, set(), 0
    while position < len(sentence):
        found = view.option_at(sentence, position) if FREE.match(sentence, position) else None
        if found and len(view.options[found[0]]) > 1 and _ASSERTED.match(sentence, found[1]):
            letters.add(found[0])
        position = found[1] if found else position + 1
    return letters.pop() if len(letters) == 1 and not _sole_label(view, sentence) else None


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
EXPLICIT = (
    "final_line",
    "boxed",
    "stated",
    "stated_option",
)  # an answer named as such: trusted even in a text cut by its budget


def extract_answer(
    text: str,
    options: Options | None = None,
    *,
    thinking: bool = False,
    ladder: dict[str, ExtractionRule] | None = None,
) -> ExtractedAnswer:
    """The letter that ``text`` settles on. ``options`` (A first) allow the rungs that read an option's text.

    Only what follows ``</think>`` is read; with ``thinking``, a text without it has not finished thinking and
    reads as nothing.
    """
    _, closed, answer = text.rpartition("</think>")
    if not closed and (thinking or "<think>" in text):
        return ExtractedAnswer(None, None)
    view = AnswerText(answer, options)
    for name, rung in (LADDER if ladder is None else ladder).items():
        letter = rung(view)
        if letter is not None:
            return ExtractedAnswer(letter, name)
    return ExtractedAnswer(None, None)
