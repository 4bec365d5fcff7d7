"""The texts of compare, report and eval, in English and Korean.

In: a language and a key of ``texts.yaml`` with its values. Out: a text. Numbers are formatted here too, so
that both languages and all outputs show them alike. Knows nothing of how numbers are computed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kmmlu_fast.data.subjects import SUBJECTS, SUPERCATEGORY_KO

if TYPE_CHECKING:
    from kmmlu_fast.analysis.ranking import RankInterval

LANGUAGES = ("en", "ko")


@functools.cache
def text_table(part: str, lang: str) -> dict[str, str]:
    """One part of ``texts.yaml`` (common, report, explorer, ...) in a language."""
    return {key: both[lang] for key, both in _load_texts()[part].items()}


@functools.cache
def _load_texts() -> dict[str, dict[str, dict[str, str]]]:
    import yaml

    text = (Path(__file__).parent / "texts.yaml").read_text(encoding="utf-8")
    # every command waits for this: libyaml is nine times as fast as the Python loader
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tables: dict[str, dict[str, dict[str, str]]] = yaml.load(text, Loader=loader)
    return tables


@dataclass(frozen=True, slots=True)
class Translator:
    """The texts of one language by their key in ``texts.yaml``, and names of subjects."""

    lang: str
    known: Mapping[str, str]

    def __call__(self, key: str, /, **values: object) -> str:
        """The text under ``key``, its {names} filled in."""
        shown = {name: self._localise(name, value) for name, value in values.items()}
        text = self.known[key].format(**shown) if shown else self.known[key]
        return choose_particles(text) if self.lang == "ko" else text

    def units(self, text: str) -> str:
        """A number that stands alone, with the language's unit of percentage points: pp, %p."""
        return _POINTS.sub(" %p", text) if self.lang == "ko" else text

    def _localise(self, name: str, value: object) -> object:
        """Numbers as they stand in a sentence: "a to b" for a range, percentage points by their Korean
        sign. Names are what the user gave.
        """
        if not isinstance(value, str) or name in _FOREIGN:
            return value
        value = _RANGE.sub(" to " if self.lang == "en" else " ~ ", value)
        return _POINTS.sub(" %p", value) if self.lang == "ko" else value

    def subject(self, name: str) -> str:
        """Config name in English with spaces, or the Korean name."""
        return subject_name(name, self.lang)

    def supercategory(self, name: str) -> str:
        """The supercategory's name."""
        return supercategory_name(name, self.lang)


def get_translator(lang: str, *more: str) -> Translator:
    """The texts of a language: "common" and the parts of ``texts.yaml`` in ``more``."""
    texts: dict[str, str] = {}
    for part in ("common", *more):
        texts |= text_table(part, lang)
    return Translator(lang, texts)


_FOREIGN = frozenset({"first", "second", "name", "state", "path", "what"})
_RANGE = re.compile(r"(?<=\d) … (?=[+−]?\d)")
_POINTS = re.compile(r"(?<=\d) pp\b")
_PARTICLES = re.compile(r"(%p|[A-Za-z0-9]+|\S)(이\(가\)|은\(는\)|을\(를\)|와\(과\)|\(으\)로)")
_AFTER_CONSONANT = {"이(가)": "이", "은(는)": "은", "을(를)": "을", "와(과)": "과", "(으)로": "으로"}
_AFTER_VOWEL = {"이(가)": "가", "은(는)": "는", "을(를)": "를", "와(과)": "와", "(으)로": "로"}
_FINALS = {**dict.fromkeys("036mnMN", "n"), **dict.fromkeys("178lLR", "l"), **dict.fromkeys("2459%", "")}
# Endings of names of models and adapters that are read as Korean words: 샷, 챗, 인스트럭트, 베스트, 비
_WORD_ENDS = (("shot", "n"), ("chat", "n"), ("instruct", ""), ("est", ""), ("er", ""), ("b", ""))
_FINALS |= dict.fromkeys("aeiouyABCDEFGHIJKOPQSTUVWXYZ", "") | {"%p": ""}


def choose_particles(text: str) -> str:
    """Korean particles such as 이(가) by the final sound before them; both stay if it is not known."""

    def chosen(match: re.Match[str]) -> str:
        before, particle = match.groups()
        final = _final_sound(before)
        if final is None:
            return match[0]
        vowel = final == "" or (final == "l" and particle == "(으)로")
        return before + (_AFTER_VOWEL if vowel else _AFTER_CONSONANT)[particle]

    return _PARTICLES.sub(chosen, text)


def _final_sound(word: str) -> str | None:
    """ "" for a vowel, "l" for ㄹ, "n" for another final consonant; None if it is not known."""
    if word in _FINALS:
        return _FINALS[word]
    for end, sound in _WORD_ENDS:
        if word.endswith(end) and (end != "b" or word[:-1].isdigit()):
            return sound
    character = word[-1]
    if "가" <= character <= "힣":
        place = (ord(character) - ord("가")) % 28
        return "" if place == 0 else "l" if place == 8 else "n"
    return _FINALS.get(character)


def subject_name(name: str, lang: str) -> str:
    """Config name in English with spaces, or the Korean name."""
    subject = SUBJECTS.get(name)
    return subject.korean if lang == "ko" and subject else name.replace("-", " ")


def supercategory_name(name: str, lang: str) -> str:
    return SUPERCATEGORY_KO.get(name, name) if lang == "ko" else name


def format_percent(value: float | None, digits: int = 2) -> str:
    """0.5625 -> "56.25"."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def format_points(value: float | None, digits: int = 2, unit: bool = True) -> str:
    """0.0133 -> "+1.33 pp"; never "-0.00"."""
    if value is None:
        return "–"
    rounded = round(100 * value, digits) + 0.0
    return f"{rounded:+.{digits}f}{' pp' if unit else ''}".replace("-", "−")


def format_points_range(values: tuple[float, float] | None, unit: bool = True, signed: bool = True) -> str:
    """(-0.0176, -0.0093) -> "−1.76 … −0.93 pp"; one number if both ends look alike."""
    if values is None:
        return "–"
    low, high = values if signed else sorted(map(abs, values))
    ends = [format_points(value, unit=False) for value in (low, high)]
    if not signed:
        ends = [end.lstrip("+") for end in ends]
    return " … ".join(dict.fromkeys(ends)) + (" pp" if unit else "")


def format_rank(rank: RankInterval) -> str:
    """ "2–4", or "1" if only one rank is possible."""
    return "–".join(dict.fromkeys([str(rank.best), str(rank.worst)]))


def format_p_value(value: float | None) -> str:
    """0.0527 -> "0.053"; below 0.001 "< 0.001"."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_value_clause(value: float | None) -> str:
    """As it follows the letter p: "= 0.053" or "< 0.001"."""
    text = format_p_value(value)
    return text if text.startswith("<") else f"= {text}"
