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

A label is A-D, 1-4 or ①-④ (further, to J, 10 and ⑩, where the question has more options), in brackets or
bare, full-width or not. It is no label as part of a word (A형, CPU, 3개, 2.5), inside an option's own text (비타민
C), denied (A가 아니라), doubted (A인 것 같지만, A라면) or one of several (A와 B). A bare digit is no label where an
option is a number; ①-④ are none where an option contains one. What cannot be read stays unread: a forced
answer is better than an invented one.

Knows nothing of prompts, engines or scores.
"""  # noqa: E501

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

Options = Sequence[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """``letter`` and the ``rung`` that read it; both None where nothing could be read."""

    letter: str | None
    rung: str | None


_PLAIN = {
    "：": ":",
    "（": "(",
    "）": ")",
    "［": "[",
    "］": "]",
    "＊": "*",
    "．": ".",
    "，": ",",
    "\xa0": " ",
    "\u3000": " ",
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
}

_END_TOKENS = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:bos|eos|end_of_turn)>|\[\|[a-z]{1,20}\|\]")
_MARKUP = re.compile(r"\\(?:boxed|text(?:bf|rm)?|math(?:bf|rm))\b|[*_`#$\\{}]")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}\n]|\{[^{}\n]*\}){1,120})\}")
_BOLD = re.compile(
    r"\*\*([^*\n]{1,200})\*\*(?!\s?[:\-–])"
)  # with a colon it heads a paragraph about that option
_SENTENCE_END = re.compile(r"(?<=[가-힣)\]][.!?])\s+|\n+")

# What may follow a label or an option's text: nothing, punctuation, a particle or the copula. "A형" and "B세포"  # noqa: E501
# are words.
_AFTER = r"""(?:
    (?![A-Za-z0-9가-힣_])
  | (?:이|가|은|는|을|를|로|으로|와|과|에|의|도|만|인|다|임|이다|예요|이에요|이야|야|죠|이죠|네요|이네요)(?![가-힣])
  | (?:입니|이며|이고|이므|이라|라고|라는|라서|라면|이지|이었|였|일까|인지|인가|이기|임을|임이|이니|이겠|처럼)
  | (?:에\s?해당|이\s?된|가\s?된|으로서)
)"""  # noqa: E501
_FREE = re.compile(r"(?<![A-Za-z0-9가-힣_+\-−*/^=.])")
_DIGIT_END = re.compile(
    r"[.:]?\s*(?:$|\n) | [.:)]\s | \s?(?:입니|이다|임|이며|이고|이므|이라|라고|예요|이에요) |"
    r" (?:이|가|을|를|로|으로)\s",
    re.VERBOSE,
)
_DENIED = re.compile(
    r"""\s?(?:이|가|은|는|도)?\s?(?:정답이|답이)?\s?(?:아니|아닌|아닙|아님|틀[리린렸립]|오답|제외|배제|잘못)
      | \s?(?:인\s?것\s?같|인\s?듯|처럼|이?라면|일\s?(?:까|수|경우|가능|때)|인지|인가|[?])
      | \s?(?:이?라고\s?(?:착각|생각하기|오해|보기)|로\s?보이(?:지만|나))""",
    re.VERBOSE,
)
_LISTED = re.compile(r"\s?(?:[,/·~&+\-]|와|과|및|또는|혹은|이?나|or\b|and\b)\s?")
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
_GAP = re.compile(r"[\s.):,-]{0,4}")
_PUNCTUATION = " \t.,;:!?\"'“”‘’()[]"


@dataclass(frozen=True, slots=True)
class _Labels:
    """What can name an option of a question with that many: forms, patterns, and the letter of each mark."""

    letters: tuple[str, ...]
    translation: dict[int, str]
    letter_of: dict[str, str]
    label: re.Pattern[str]
    marker: re.Pattern[str]
    final_line: re.Pattern[str]

    @property
    def digits(self) -> frozenset[str]:
        return frozenset(str(place + 1) for place in range(len(self.letters)))

    @property
    def circled(self) -> frozenset[str]:
        return frozenset(chr(0x2460 + place) for place in range(len(self.letters)))

    def next_listed(self, text: str, end: int) -> int:
        """Where the next label of a list such as "A와 B" begins, given where this one ends; 0
        where there is no list.
        """
        listed = _LISTED.match(text, end)
        return listed.end() if listed and self.label.match(text, listed.end()) else 0


@functools.cache
def _labels_of(count: int) -> _Labels:
    letters = OPTION_LETTERS[:count]
    places = range(count)
    forms = {
        **{chr(0xFF21 + i): letter for i, letter in enumerate(letters)},  # full-width A-D
        **{chr(0xFF11 + i): str(i + 1) for i in places[:9]},  # full-width 1-4
        **{chr(0x2474 + i): f"({i + 1})" for i in places},  # parenthesised 1-4
        **{chr(0x24B6 + i): f"({letter})" for i, letter in enumerate(letters)},  # circled A-D
        **{chr(0x24D0 + i): f"({letter})" for i, letter in enumerate(letters)},  # circled a-d
        **{chr(0x2776 + i): chr(0x2460 + i) for i in places},  # black circled 1-4
        **_PLAIN,
    }
    last, circled = letters[-1], chr(0x2460 + count - 1)
    digits = f"[1-{count}]" if count < 10 else "10|[1-9]"
    mark = rf"[A-{last}]|{digits}|[①-{circled}]"
    listed = rf"[A-{last}①-{circled}1-{min(count, 9)},\s]{{3,{max(24, 4 * count)}}}"
    label = rf"""(?:[(\[<「『【"'“‘]\s?)?
        (?P<mark>{mark})(?P<decimal>[.,]\d)?\s?(?P<close>[)\]>」』】"'”’])?(?P<number>\s?번)?(?={_AFTER})"""
    marker = rf"""(?: (?:정\s?답|해답|(?<![가-힣])답(?:안)?)(?:\s?번호)?[\])】>』」]? | \b(?i:answer) )
        \s?(?:은|는|이|으로는|으로|(?i:is))?\s?[:=→-]?>?\s*
        (?:(?:바로|역시|보기|선택지|옵션|번호|위의|최종적으로|결국|option|모두|{listed}\s?중(?:에서)?)\s?)?"""
    return _Labels(
        letters=letters,
        translation=str.maketrans(forms),
        letter_of={
            form: letter for i, letter in enumerate(letters) for form in (letter, str(i + 1), chr(0x2460 + i))
        },
        label=re.compile(label, re.VERBOSE),
        marker=re.compile(marker, re.VERBOSE),
        final_line=re.compile(rf"\W*(?:최종\s?)?정답\s?:\s?[(\[]?\s?([A-{last}])\s?[)\]]?\s?\.?\W*"),
    )


class _View:
    """One text, prepared once for all rungs: without end-of-turn tokens, in ASCII forms;
    ``plain`` also without markup.
    """

    def __init__(self, text: str, options: Options | None) -> None:
        self.labelling = _labels_of(len(options) if options else len(LETTERS))
        translation = self.labelling.translation
        self.text = _END_TOKENS.sub("", text.translate(translation)).strip()
        self.plain = _MARKUP.sub("", self.text)
        texts = [
            " ".join(_MARKUP.sub("", option.translate(translation)).split()).strip(_PUNCTUATION)
            for option in options or ()
        ]
        lettered = zip(self.labelling.letters, texts, strict=False)
        self.options = {letter: option for letter, option in lettered if option and texts.count(option) == 1}
        self.digits_are_values = any(re.fullmatch(r"[-+−]?[\d.,]+", option) for option in texts)
        self.circled_are_values = any(set(option) & self.labelling.circled for option in texts)

    @cached_property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.plain.splitlines() if line.strip()]

    @cached_property
    def sentence(self) -> str:
        parts = [part for part in _SENTENCE_END.split(self.plain) if part.strip(_PUNCTUATION)]
        return parts[-1].strip() if parts else ""

    def label(self, text: str, start: int) -> tuple[str, int] | None:
        """The label that begins at ``start`` and its end; None where there is none, or it is
        denied, doubted or one of several.
        """
        match = self.labelling.label.match(text, start)
        if not match or match["decimal"]:
            return None
        mark, end = match["mark"], match.end()
        bare_digit = mark in self.labelling.digits and not (match["close"] or match["number"])
        if bare_digit and (self.digits_are_values or not _DIGIT_END.match(text, end)):
            return None
        if mark in self.labelling.circled and self.circled_are_values:
            return None
        letter = self.labelling.letter_of[mark]
        if (
            self._within_option(text, match.start("mark"))
            or _DENIED.match(text, end)
            or self.labelling.next_listed(text, end)
        ):
            return None
        return None if _DENIED.match(text, self.past_own_option(letter, text, end)) else (letter, end)

    def past_own_option(self, letter: str, text: str, end: int) -> int:
        """Where the option's own text ends if it follows its label, as in "(B) 대차대조표"; else ``end``."""
        gap = _GAP.match(text, end)
        own = self._patterns[letter].match(text, gap.end()) if gap and letter in self._patterns else None
        return own.end() if own else end

    def labels(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(letter, start, end) of each free-standing label; a digit is one only in brackets or with 번."""
        position, listed_at = 0, -1
        while match := self.labelling.label.search(text, position):
            start, position = match.start(), match.end()
            in_list, listed_at = start == listed_at, self.labelling.next_listed(text, match.end())
            if in_list:
                continue
            bare_digit = match["mark"] in self.labelling.digits and not (match["close"] or match["number"])
            if not bare_digit and _FREE.match(text, start) and (found := self.label(text, start)):
                yield found[0], start, found[1]

    def option(self, text: str, start: int) -> tuple[str, int] | None:
        """The option whose text stands at ``start`` (the longest that fits) and its end; None
        where denied.
        """
        fits = [
            (match.end(), letter)
            for letter, pattern in self._patterns.items()
            if (match := pattern.match(text, start))
        ]
        if not fits:
            return None
        end, letter = max(fits)
        return None if _DENIED.match(text, end) else (letter, end)

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        patterns = {}
        for letter, option in self.options.items():
            body = r"\s*".join(re.escape(word) for word in option.split())
            closed = r"(?![.,]?\d)" if option[-1].isdigit() else ""
            patterns[letter] = re.compile(rf"[\"'“‘(\[]?{body}[\"'”’)\]]?{closed}(?={_AFTER})", re.VERBOSE)
        return patterns

    def _within_option(self, text: str, position: int) -> bool:
        for option in self.options.values():
            if len(option) > 1:
                start = text.find(option, max(0, position - len(option) + 1), position + len(option))
                if 0 <= start <= position:
                    return True
        return False


def _label_only(view: _View, text: str) -> str | None:
    """The letter where ``text`` is a label and nothing else, or a label and that option's own text."""
    text = text.strip().strip("-•> ")
    found = view.label(text, 0)
    if not found:
        return None
    rest = text[found[1] :].strip(_PUNCTUATION)
    own = view.options.get(found[0])
    return found[0] if not rest or rest == own else None


def _final_line(view: _View) -> str | None:
    match = view.labelling.final_line.fullmatch(view.lines[-1]) if view.lines else None
    return match[1] if match else None


def _boxed(view: _View) -> str | None:
    boxes = _BOXED.findall(view.text)
    return _label_only(view, _MARKUP.sub("", boxes[-1])) if boxes else None


def _stated(view: _View) -> str | None:
    """The last of all answers named as such, before or after the label."""
    found = [
        (match.end(), at[0])
        for match in view.labelling.marker.finditer(view.plain)
        if (at := view.label(view.plain, match.end()))
    ]
    for match in _NAMED.finditer(view.plain):
        begin = max(view.plain.rfind("\n", 0, match.start()) + 1, match.start() - 120)
        before = [
            letter
            for letter, _, end in view.labels(view.plain[begin : match.end()])
            if begin + end <= match.start()
        ]
        if before:
            found.append((match.start(), before[-1]))
    return max(found)[1] if found else None


def _stated_option(view: _View) -> str | None:
    found = [
        at[0]
        for match in view.labelling.marker.finditer(view.plain)
        if (at := view.option(view.plain, match.end()))
    ]
    return found[-1] if found else None


def _bold(view: _View) -> str | None:
    lines = [line for line in view.text.splitlines() if line.strip()]
    letters = {
        found[0]
        for bold in _BOLD.findall(lines[-1] if lines else "")
        if (found := view.label(bold.strip(), 0))
    }
    return letters.pop() if len(letters) == 1 else None


def _label_line(view: _View) -> str | None:
    letters = {letter for line in view.lines if (letter := _label_only(view, line))}
    return letters.pop() if len(letters) == 1 else None


def _concluded(view: _View) -> str | None:
    sentence = view.sentence
    letters = {
        letter
        for letter, start, end in view.labels(sentence)
        if (sentence[start] not in OPTION_LETTERS or _BEFORE_BARE.search(sentence[:start]))
        and _ASSERTED.match(sentence, view.past_own_option(letter, sentence, end))
    }
    return (
        letters.pop()
        if len(letters) == 1 and "오답" not in sentence and not _label_only(view, sentence)
        else None
    )


def _closing_option(view: _View) -> str | None:
    sentence, letters, position = view.sentence, set(), 0
    while position < len(sentence):
        found = view.option(sentence, position) if _FREE.match(sentence, position) else None
        if found and len(view.options[found[0]]) > 1 and _ASSERTED.match(sentence, found[1]):
            letters.add(found[0])
        position = found[1] if found else position + 1
    return letters.pop() if len(letters) == 1 and not _label_only(view, sentence) else None


Rung = Callable[[_View], str | None]
LADDER: dict[str, Rung] = {
    "final_line": _final_line,
    "boxed": _boxed,
    "stated": _stated,
    "stated_option": _stated_option,
    "bold": _bold,
    "label_line": _label_line,
    "concluded": _concluded,
    "closing_option": _closing_option,
}
STRICT = ("final_line",)
EXPLICIT = (
    "final_line",
    "boxed",
    "stated",
    "stated_option",
)  # an answer named as such: trusted even in a text cut by its budget


def read_answer(
    text: str,
    options: Options | None = None,
    *,
    thinking: bool = False,
    ladder: dict[str, Rung] | None = None,
) -> Reading:
    """The letter that ``text`` settles on. ``options`` (A first) allow the rungs that read an option's text.

    Only what follows ``</think>`` is read; with ``thinking``, a text without it has not finished thinking and
    reads as nothing.
    """
    _, closed, answer = text.rpartition("</think>")
    if not closed and (thinking or "<think>" in text):
        return Reading(None, None)
    view = _View(answer, options)
    for name, rung in (LADDER if ladder is None else ladder).items():
        letter = rung(view)
        if letter is not None:
            return Reading(letter, name)
    return Reading(None, None)
