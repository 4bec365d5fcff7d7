"""What run directories are called, and that directories named by earlier versions are found."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kmmlu_fast.core.files import make_ascii_slug, make_slug
from kmmlu_fast.evaluation.plan import EvalPlan
from kmmlu_fast.evaluation.run_names import run_directory_name, run_name


def plan(folder: Path, model: str = "skt/A.X-4.0-Light") -> EvalPlan:
    config: Any = SimpleNamespace(
        output_dir=folder, output_type="multiple_choice", split="test", num_fewshot=0
    )
    source, named = SimpleNamespace(slug="kmmlu"), SimpleNamespace(name=model)
    return cast(EvalPlan, SimpleNamespace(config=config, source=source, model=named, style="lm-eval"))


def adapter(name: str) -> Any:
    return SimpleNamespace(name=name)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("한국어-로라", "한국어-로라"),
        ("법률 v2/최종", "법률-v2-최종"),
        ("out/lora_1", "out-lora-1"),
        ("../..", "x"),
        ("a\x00b", "a-b"),
    ],
)
def test_letters_of_any_script_stay(name: str, slug: str) -> None:
    assert make_slug(name) == slug


@pytest.mark.parametrize("name", ["base", "skt/A.X-4.0-Light", "a__b--c", "-x.", "Qwen3_8B v1"])
def test_names_in_english_letters_are_as_they_were(name: str) -> None:
    assert make_slug(name) == make_ascii_slug(name)


def test_decomposed_and_composed_hangul_are_one_name() -> None:
    assert make_slug("한글") == make_slug("한글") == "한글"


def test_a_directory_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    new = run_directory_name(plan(tmp_path), adapter("한국어"), "abc")
    assert new == run_name(plan(tmp_path), adapter("한국어")) and "한국어" in new
    earlier = run_name(plan(tmp_path), adapter("한국어"), make_ascii_slug)
    (tmp_path / f"{earlier}-abc").mkdir()
    assert run_directory_name(plan(tmp_path), adapter("한국어"), "abc") == earlier
    assert run_directory_name(plan(tmp_path), adapter("한국어"), "other") == new


def test_long_korean_names_fit_into_a_file_name(tmp_path: Path) -> None:
    name = run_name(plan(tmp_path, "o/" + "가" * 120), adapter("나" * 120))
    assert len(name.encode()) < 240 and name != run_name(
        plan(tmp_path, "o/" + "가" * 121), adapter("나" * 120)
    )
