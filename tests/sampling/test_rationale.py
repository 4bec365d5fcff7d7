"""rationale: rejection by the key, the shortest agreeing attempt, what happens to rows without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast import sample
from kmmlu_fast.core import letters
from kmmlu_fast.core.schema import Completion, Generation, Question, Request, Response
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.engines import factory as engines
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.vllm import start
from kmmlu_fast.engines.vllm.device_arguments import cpu_arguments
from kmmlu_fast.models import model as models
from kmmlu_fast.sampling import rationale
from kmmlu_fast.sampling.config import SampleConfig

QUESTION = Question(
    question_id="Math/train/3",
    subject="Math",
    supercategory="STEM",
    split="train",
    row=3,
    question="3에 1을 더하면?",
    options=("영", "하나", "둘", "넷"),
    answer="D",
)
SHORT = "3에 1을 더하면 4가 되므로 마지막 보기가 맞는다.\n정답: D"
LONG = "먼저 3을 쓴다. 여기에 1을 더한다. 그러면 4가 되고, 이는 네 번째 보기와 같다.\n정답: D"
WRONG = "3에 1을 더하면 2가 되므로 세 번째 보기가 맞는다.\n정답: C"


def test_the_shortest_that_agrees_with_the_key_is_kept():
    assert rationale.shortest_correct_response([LONG, WRONG, SHORT], QUESTION) == SHORT
    assert rationale.shortest_correct_response([WRONG, LONG], QUESTION) == LONG


@pytest.mark.parametrize(
    "text", [WRONG, "정답: D", "네.\n정답: D", "3에 1을 더하면 얼마인지 알 수 없는 어려운 문제이다.", ""]
)
def test_wrong_bare_and_unread_attempts_are_refused(text: str):
    assert rationale.shortest_correct_response([text], QUESTION) is None


def test_the_answer_line_is_uniform_and_what_follows_is_cut():
    text = "3에 1을 더하면 4가 되므로, 따라서 정답은 D입니다.\n\n문제: 다른 물음"
    assert (
        rationale.shortest_correct_response([text], QUESTION)
        == "3에 1을 더하면 4가 되므로, 따라서 정답은 D입니다.\n정답: D"
    )


class Attempts(FakeEngine):
    """Answers every generation with these texts, one a sample."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        super().__init__()
        self._texts = texts
        self.asked: list[Request] = []

    def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        if request.stage != "reason":
            return super()._answer(request)
        texts = self._texts[request.question_id]
        assert isinstance(request.want, Generation)
        assert len(texts) == request.want.num_samples and request.want.temperature > 0
        return Response(request, completions=tuple(Completion(t, (7, 8), "stop") for t in texts))


ROWS = [
    sft.SftRow(question=QUESTION, strategy="uniform"),
    sft.SftRow(
        question=letters.reorder_question(QUESTION, "DABC"), strategy="uniform", option_order="DABC", repeat=1
    ),
    sft.SftRow(question=replace(QUESTION, question_id="Math/train/4", row=4), strategy="uniform"),
]
TEXTS = {
    "Math/train/3#0": [LONG, SHORT],
    "Math/train/3#1": [SHORT, SHORT.replace("정답: D", "정답: A")],
    "Math/train/4#0": [WRONG, WRONG],
}


@pytest.mark.parametrize("missing", ["answer", "drop"])
def test_rows_get_their_own_rationales_and_the_others_are_counted(missing: str):
    """The repeated question was reordered: there the key is A, and an attempt that says D is wrong."""
    config = SampleConfig(rationale="self", rationale_samples=2, rationale_missing=missing, model="tiny")
    rows, facts = rationale.add_rationales(ROWS, config, Attempts(TEXTS), make_tiny_tokenizer())
    assert [row.response for row in rows][:2] == [SHORT, SHORT.replace("정답: D", "정답: A")]
    assert (facts["asked"], facts["with"], facts["without"]) == (3, 2, 1)
    assert len(rows) == (3 if missing == "answer" else 2)
    if missing == "answer":
        assert rows[2].response is None
    assert [row.question.question_id for row in rows][:2] == ["Math/train/3", "Math/train/3"]


def test_the_command_writes_rationales_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Every attempt says A: rows whose key is A have a rationale, the others keep their letter."""
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        models, "resolve_model", lambda name, revision, trust: models.Model("tiny", ".", None, "0")
    )
    monkeypatch.setattr(models.Model, "config", lambda self: {"max_position_embeddings": 8192})
    monkeypatch.setattr(models, "load_tokenizer", lambda model: make_tiny_tokenizer())
    monkeypatch.setattr(
        engines,
        "open_engine",
        lambda *_: FakeEngine("보기를 하나씩 따져 보면 첫째 보기만 조건을 만족한다.\n정답: A"),
    )
    out = tmp_path / "sft.jsonl"
    flags = [
        "--dataset",
        "sample",
        "--strategy",
        "uniform",
        "--size",
        "45",
        "--rationale",
        "self",
        "--model",
        "tiny",
        "--out",
        str(out),
    ]
    assert sample.run_sample_command(flags) == 0
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {(r["answer"] == "A", r["rationale"]) for r in records} == {(True, "self"), (False, "none")}
    assert all(r["output"].endswith("\n정답: A") for r in records if r["rationale"] == "self")
    found = sum(r["rationale"] == "self" for r in records)
    line = (
        f"rationales: {found} of 45 rows have one that reached the key in 4 attempts (model tiny);"
        f" {45 - found} had none and were kept"
    )
    assert line in capsys.readouterr().out
    assert line in out.with_suffix(".md").read_text(encoding="utf-8")
    assert [row.response is None for row in sft.read_sft_rows(out)] == [
        r["rationale"] == "none" for r in records
    ]


def test_prompts_stay_whole_on_cpu() -> None:
    """vLLM on CPU cannot rewind a seeded sampler after a piece of a prompt: the engine must
    know that attempts are sampled.
    """
    settings = start.vllm_engine_settings(
        SampleConfig(rationale="self"), models.Model("tiny", ".", None, "0"), [], 4096
    )
    assert settings.samples and cpu_arguments(settings)["enable_chunked_prefill"] is False
