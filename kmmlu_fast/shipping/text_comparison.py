"""Compares what happens before the weights: token ids, BOS, chat template, thinking switch, stop ids.

In: the reference's and the artefact's tokenizers, texts. Out: ``TextComparison``. Knows nothing of weights.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import KmmluError

# Texts in which tokenizers differ: spaces, digits, Hangul in pieces, full width, emoji, code, marks.
TEXTS = (
    "정답：",
    " A",
    "다음 중 옳지 않은 것은?\nA. 갑\nB. 을\n",
    "Answer with one letter.  Two spaces,\ttab,\n\nblank line.",
    "3.14159 2026-11-30 1,234,567 ①②③ 제1항",
    "뷁쀍 각 ㄱㄴㄷ ＡＢＣ～ 🚀🦙",
    "def f(x):\n    return x ** 2  # 제곱\n",
    "It's don't WE'LL 2nd",
)
_DECOMPOSED = unicodedata.normalize("NFD", "한글 각도")  # as file names on macOS
_TURNS = (
    [{"role": "system", "content": "짧게 답하라."}, {"role": "user", "content": "서울은 어디에 있는가?"}],
    [
        {"role": "user", "content": "A 또는 B?"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "Why?"},
    ],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextComparison:
    """How the artefact reads and ends text, against the reference."""

    texts: int
    different: int  # texts whose ids differ other than by BOS
    example: str = ""  # one of them
    bos: str = "same"  # same, lost, doubled, added: a first token that the reference does not have
    vocabulary: tuple[int, int] | None = None  # reference, artefact, if they differ
    template: str = "same"  # same, lost, other, thinking
    missing_stops: tuple[str, ...] = ()
    decomposed_differ: bool = False  # Hangul in decomposed letters (NFD), which llama.cpp does not compose


def compare_texts(
    reference: Any, other: Any, prompts: Sequence[str], stops: Sequence[int], other_stops: set[int] | None
) -> TextComparison:
    """Encode everything with both tokenizers, render with both templates."""
    different, example, bos = 0, "", "same"
    texts = [*prompts, *TEXTS]
    for text in texts:
        ids, other_ids = encode_text(reference, text), encode_text(other, text)
        if ids == other_ids:
            continue
        if len(ids) == len(other_ids) + 1 and ids[1:] == other_ids:
            bos = "lost"
        elif len(ids) + 1 == len(other_ids) and other_ids[1:] == ids:
            bos = "doubled" if ids[:1] == other_ids[:1] else "added"
        else:
            different, example = different + 1, example or text
    sizes = (vocabulary_size(reference), vocabulary_size(other))
    names = [
        str(reference.convert_ids_to_tokens(stop)) for stop in stops if stop not in (other_stops or {stop})
    ]
    return TextComparison(
        texts=len(texts),
        different=different,
        example=example[:40],
        bos=bos,
        vocabulary=None if sizes[0] == sizes[1] else sizes,
        template=_compare_templates(reference, other, _bos_marks(reference, other) if bos != "same" else ()),
        missing_stops=tuple(names),
        decomposed_differ=encode_text(reference, _DECOMPOSED) != encode_text(other, _DECOMPOSED),
    )


def encode_text(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=True)["input_ids"])


def vocabulary_size(tokenizer: Any) -> int:
    return len(tokenizer)


def _bos_marks(*tokenizers: Any) -> tuple[str, ...]:
    """The texts of the begin-of-text tokens."""
    texts = (tokenizer.special_tokens_map.get("bos_token") for tokenizer in tokenizers)
    return tuple(str(text) for text in texts if text)


def _compare_templates(reference: Any, other: Any, marks: tuple[str, ...]) -> str:
    """``marks`` begin no text that is compared: BOS, if it is a fault of its own."""
    if not getattr(reference, "chat_template", None):
        return "same"  # nothing was measured with a template
    if not getattr(other, "chat_template", None):
        return "lost"
    off, on = (_rendered(reference, thinking, marks) for thinking in (False, True))
    other_off, other_on = (_rendered(other, thinking, marks) for thinking in (False, True))
    if (off, on) == (other_off, other_on):
        return "same"
    is_part_right = off == other_off or on == other_on
    is_turned = off == other_on or on == other_off
    return "thinking" if off != on and (is_part_right or is_turned) else "other"


def _rendered(tokenizer: Any, thinking: bool, marks: tuple[str, ...]) -> list[str | None]:
    """Each conversation as text; None if the template refuses it."""
    texts: list[str | None] = []
    for turns in _TURNS:
        try:
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        except KmmluError:
            text = None
        except Exception:  # jinja's and the template's own errors
            text = None
        while text and (mark := next(filter(text.startswith, marks), "")):
            text = text.removeprefix(mark)
        texts.append(text)
    return texts
