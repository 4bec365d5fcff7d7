"""Task files of an installed lm-eval: found without importing it, refused in one line if not there."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.prompting import lm_eval_tasks
from kmmlu_fast.prompting.lm_eval_tasks import digest_tasks, render_task_prompt

TASK = """
dataset_name: {name}
doc_to_text: "{{{{question}}}}\\nA.{{{{A}}}}\\nB.{{{{B}}}}\\n정답: {name}"
fewshot_config:
  samples:
  - {{question: 'Q {{{{B}}}}', A: 가, B: 나, target: 그래서 (A)}}
"""
ASKED = Question(
    question_id="Law/test/0",
    subject="Law",
    supercategory="HUMSS",
    split="test",
    row=0,
    question="{{A}}란?",
    options=("하나", "{{question}}"),
    answer="A",
)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An lm-eval with a task of two subjects, whose file names both end in law."""
    folder = tmp_path / "tasks" / "made"
    folder.mkdir(parents=True)
    for name in ("law", "criminal_law"):
        (folder / f"made_{name}.yaml").write_text(TASK.format(name=name), encoding="utf-8")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    lm_eval_tasks.read_subject_task.cache_clear()
    yield folder
    lm_eval_tasks.read_subject_task.cache_clear()


def test_a_question_follows_its_subjects_exemplars_and_braces_stay(tasks: Path) -> None:
    assert render_task_prompt("made", ASKED) == (
        "Q {{B}}\nA.가\nB.나\n정답: law 그래서 (A)\n\n{{A}}란?\nA.하나\nB.{{question}}\n정답: law"
    )
    assert "lm_eval" not in sys.modules or Path(str(sys.modules["lm_eval"].__file__)).parent != tasks


def test_any_byte_changes_the_digest(tasks: Path) -> None:
    before = digest_tasks("made")
    (tasks / "made_law.yaml").write_text(TASK.format(name="law") + " ", encoding="utf-8")
    assert digest_tasks("made") != before


def test_what_is_not_there_is_said(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match=r"no task for the subject 'Physics': .* KMMLU-HARD"):
        render_task_prompt("made", replace(ASKED, subject="Physics"))
    (tasks / "made_law.yaml").write_text("dataset_name: law\ndoc_to_text: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"not laid out .* lm-eval==0\.4\.13"):
        render_task_prompt("made", ASKED)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"read from lm-eval's tasks/made; install"):
        digest_tasks("made")
