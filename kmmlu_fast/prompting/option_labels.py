"""Finds what names an option in a generated text: labels and option texts, unless denied or doubted.

In: a text, the options. Out: an ``AnswerText`` that finds labels and options. Does not know which of them
count: ``answer_extraction`` decides.

A label is A-D, 1-4 or ①-④ (up to J, 10 and ⑩ if the question has more options), in brackets or bare,
full-width or not. It is not a label as part of a word (A형, CPU, 3개, 2.5), inside an option's text
(비타민 C), denied (A가 아니라), doubted (A인 것 같지만, A라면) or one of several (A와 B). A bare digit is not
a label if an option is a number, and ①-④ are not if an option contains one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS

Options = Sequence[str]
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
MARKUP = re.compile(r"\\(?:boxed|text(?:bf|rm)?|math(?:bf|rm))\b|[*_`#$\\{}]")
_SENTENCE_END = re.compile(r"(?<=[가-힣)\]][.!?])\s+|\n+")
# What may follow a label or an option's text: nothing, punctuation, a particle or the copula. "A형" and
# "B세포" are words.
_AFTER = r"""(?:
    (?![A-Za-z0-9가-힣_])
  | (?:이|가|은|는|을|를|로|으로|와|과|에|의|도|만|인|다|임|이다|예요|이에요|이야|야|죠|이죠|네요|이네요)(?![가-힣])
  | (?:입니|이며|이고|이므|이라|라고|라는|라서|라면|이지|이었|였|일까|인지|인가|이기|임을|임이|이니|이겠|처럼)
  | (?:에\s?해당|이\s?된|가\s?된|으로서)
)"""  # noqa: E501
FREE = re.compile(r"(?<![A-Za-z0-9가-힣_+\-−*/^=.])")
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
_GAP = re.compile(r"[\s.):,-]{0,4}")
PUNCTUATION = " \t.,;:!?\"'“”‘’()[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _LabelPatterns:
    """How the options of a question can be named: patterns, and the letter of each mark."""

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

    def next_label_in_list(self, text: str, end: int) -> int:
        """Where the next label of a list such as "A와 B" begins if this one ends at ``end``; 0 if none."""
        listed = _LISTED.match(text, end)
        return listed.end() if listed and self.label.match(text, listed.end()) else 0


@functools.cache
def _label_patterns(count: int) -> _LabelPatterns:
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
    letter_of: dict[str, str] = {}
    for i, letter in enumerate(letters):
        letter_of |= dict.fromkeys((letter, str(i + 1), chr(0x2460 + i)), letter)
    return _LabelPatterns(
        letters=letters,
        translation=str.maketrans(forms),
        letter_of=letter_of,
        label=re.compile(label, re.VERBOSE),
        marker=re.compile(marker, re.VERBOSE),
        final_line=re.compile(rf"\W*(?:최종\s?)?정답\s?:\s?[(\[]?\s?([A-{last}])\s?[)\]]?\s?\.?\W*"),
    )


class AnswerText:
    """One text, prepared once for all rungs: without end-of-turn tokens, labels in their plain forms;
    ``plain`` also without markup.
    """

    def __init__(self, text: str, options: Options | None) -> None:
        self.labelling = _label_patterns(len(options) if options else len(LETTERS))
        translation = self.labelling.translation
        self.text = _END_TOKENS.sub("", text.translate(translation)).strip()
        self.plain = MARKUP.sub("", self.text)
        texts = [
            " ".join(MARKUP.sub("", option.translate(translation)).split()).strip(PUNCTUATION)
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
    def last_sentence(self) -> str:
        parts = [part for part in _SENTENCE_END.split(self.plain) if part.strip(PUNCTUATION)]
        return parts[-1].strip() if parts else ""

    def label_at(self, text: str, start: int) -> tuple[str, int] | None:
        """The label that begins at ``start``, and its end; None if there is none, or if it is denied, doubted
        or one of several.
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
            self._is_within_option(text, match.start("mark"))
            or _DENIED.match(text, end)
            or self.labelling.next_label_in_list(text, end)
        ):
            return None
        return None if _DENIED.match(text, self.end_of_own_option(letter, text, end)) else (letter, end)

    def end_of_own_option(self, letter: str, text: str, end: int) -> int:
        """Where the option's own text ends if it follows its label, as in "(B) 대차대조표"; else ``end``."""
        gap, pattern = _GAP.match(text, end), self._option_patterns.get(letter)
        own_text = pattern.match(text, gap.end()) if gap and pattern else None
        return own_text.end() if own_text else end

    def find_labels(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(letter, start, end) of each free-standing label; a digit counts only in brackets or before 번."""
        position, listed_at = 0, -1
        while match := self.labelling.label.search(text, position):
            start, position = match.start(), match.end()
            is_listed, listed_at = start == listed_at, self.labelling.next_label_in_list(text, position)
            bare_digit = match["mark"] in self.labelling.digits and not (match["close"] or match["number"])
            if is_listed or bare_digit or not FREE.match(text, start):
                continue
            if label := self.label_at(text, start):
                letter, end = label
                yield letter, start, end

    def option_at(self, text: str, start: int) -> tuple[str, int] | None:
        """The option whose text begins at ``start`` (the longest that matches), and its end; None if there is
        none, or if it is denied.
        """
        matches = {letter: pattern.match(text, start) for letter, pattern in self._option_patterns.items()}
        ends = [(match.end(), letter) for letter, match in matches.items() if match]
        if not ends:
            return None
        end, letter = max(ends)
        return None if _DENIED.match(text, end) else (letter, end)

    @cached_property
    def _option_patterns(self) -> dict[str, re.Pattern[str]]:
        patterns = {}
        for letter, option in self.options.items():
            body = r"\s*".join(re.escape(word) for word in option.split())
            closed = r"(?![.,]?\d)" if option[-1].isdigit() else ""
            patterns[letter] = re.compile(rf"[\"'“‘(\[]?{body}[\"'”’)\]]?{closed}(?={_AFTER})", re.VERBOSE)
        return patterns

    def _is_within_option(self, text: str, position: int) -> bool:
        for option in self.options.values():
            start = text.find(option, max(0, position - len(option) + 1), position + len(option))
            if len(option) > 1 and 0 <= start <= position:
                return True
        return False
