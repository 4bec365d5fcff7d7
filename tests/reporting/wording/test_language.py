"""``texts.yaml``: every key is used somewhere, and both languages say it with the same values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kmmlu_fast.reporting.wording.language import choose_particles, get_translator

REPORTING = Path(__file__).parents[3] / "kmmlu_fast" / "reporting"
TEXTS = yaml.safe_load((REPORTING / "wording" / "texts.yaml").read_text(encoding="utf-8"))
SOURCES = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted(REPORTING.rglob("*"))
    if path.suffix in (".py", ".j2", ".js")
)
KEYS = [(part, key) for part, entries in TEXTS.items() for key in entries]


@pytest.mark.parametrize(("part", "key"), KEYS)
def test_every_key_is_used(part: str, key: str) -> None:
    """By name, or by a name that is put together from its beginning: ``t(f"way_{way}")``."""
    starts = [key[:end] for end in range(3, len(key)) if key[end - 1] == "_"]
    made = any(f'"{start}{{' in SOURCES or f"'{start}' +" in SOURCES for start in starts)
    assert made or re.search(rf"""(["'.]{re.escape(key)}\b)|(\b{re.escape(key)}:)""", SOURCES), (
        f"{part}.{key} is used nowhere"
    )


@pytest.mark.parametrize(("part", "key"), KEYS)
def test_both_languages_take_the_same_values(part: str, key: str) -> None:
    both = TEXTS[part][key]
    names = [set(re.findall(r"\{(\w+)", str(both[lang]))) for lang in ("en", "ko")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("lora이(가) base보다", "lora가 base보다"),
        ("모델은(는)", "모델은"),
        ("base와(과) gpt-4.1은(는)", "base와 gpt-4.1은"),
        ("fp8(으)로", "fp8로"),
        ("서울(으)로 3(으)로", "서울로 3으로"),
        ("run_)이(가)", "run_)이(가)"),
        ("1.5 %p을(를)", "1.5 %p를"),
        ("gpt-5.1-0shot이(가)", "gpt-5.1-0shot이"),
        ("phi-4-instruct와(과)", "phi-4-instruct와"),
        ("gemma-27b은(는)", "gemma-27b는"),
        ("bob은(는)", "bob은(는)"),
    ],
)
def test_korean_particles_follow_the_final_sound(text: str, chosen: str) -> None:

    assert choose_particles(text) == chosen


def test_korean_points_are_percent_points() -> None:
    from kmmlu_fast.reporting.wording.language import get_translator

    assert get_translator("ko").units("+1.33 pp (a pp run)") == "+1.33 %p (a pp run)"
    assert get_translator("en").units("+1.33 pp") == "+1.33 pp"


def test_numbers_in_sentences_are_written_as_the_language_writes_them() -> None:
    values = {"gap": "0.41 … 2.06 pp", "low": "1", "high": "2"}
    assert "by 0.41 to 2.06 pp than" in get_translator("en")("overlap_gap", **values)
    assert "0.41 ~ 2.06 %p 높습니다" in get_translator("ko")("overlap_gap", **values)
    names = {"first": "run 1 pp", "second": "2 … 3 pp"}
    assert "run 1 pp와(과) 2 … 3 pp은(는)" in get_translator("ko")("same", **names)
