"""late_inductor: on a CPU letters need no Inductor, which is whole once something is compiled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

from kmmlu_fast.engines.vllm import late_inductor

ROOT = Path(__file__).resolve().parents[3]
# A process of its own: what is imported cannot be taken back.
CHILD = """
import json, sys
import torch
from kmmlu_fast.core.schema import Candidates, Request
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings
from kmmlu_fast.engines.vllm.start import start_vllm

compile_before = torch.compile
engine = start_vllm(EngineSettings(model=sys.argv[1], dtype="float32", max_model_len=128))
request = Request(question_id="q", stage="letters", token_ids=(3, 4, 5, 6), want=Candidates((5, 6, 7, 8)))
answers = list(engine.generate([request]))
heavy = ["torch._inductor.lowering", "torch._inductor.compile_fx"]
heavy += ["sklearn", "scipy.signal", "scipy.optimize"]
told = {"answers": len(answers), "loaded": [name for name in heavy if name in sys.modules]}
told["compile"] = torch.compile is compile_before

from vllm.v1.sample.ops.topk_topp_sampler import compiled_random_sample
logits = torch.full((2, 50), -100.0)
logits[0, 7] = logits[1, 9] = 100.0
told["sampled"] = compiled_random_sample(logits).tolist()
from torch._inductor import graph, lowering
told["now"] = "torch._inductor.compile_fx" in sys.modules
told["fallback"] = ["vllm::anything" in part.FALLBACK_ALLOW_LIST for part in (lowering, graph)]
told["finders"] = [type(finder).__name__ for finder in sys.meta_path].count("_RunAfterImport")
import scipy.optimize, scipy.signal, sklearn.metrics
from transformers.generation.candidate_generator import roc_curve
from vllm.multimodal.audio import scipy_signal
told["real"] = [
    scipy.signal.__file__ is not None,
    [float(value) for value in roc_curve([0, 1], [0.1, 0.9])[1]][-1] == 1.0,
    len(scipy_signal.resample_poly([1.0] * 8, 1, 2)) == 4,
]
print(json.dumps(told))
"""


@pytest.mark.engine
def test_letters_are_answered_without_inductor_and_it_is_whole_when_something_is_compiled(
    tmp_path: Path,
) -> None:
    make_tiny_model(tmp_path / "base")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "base")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {
        "answers": 1,
        "loaded": [],
        "compile": True,
        "sampled": [7, 9],
        "now": True,
        "fallback": [True, True],
        "finders": 0,
        "real": [True, True, True],
    }


@pytest.mark.engine
def test_ranks_by_row_are_vllms() -> None:
    torch = pytest.importorskip("torch")
    logprobs = pytest.importorskip("vllm.v1.sample.ops.logprobs")
    from kmmlu_fast.engines.vllm.late_inductor import count_at_least

    drawn = torch.randint(-40, 0, (9, 1000), generator=torch.Generator().manual_seed(0)) / 8  # with ties
    drawn[3, :500] = -float("inf")
    values = drawn[:, 4:5].clone()
    values[5] = 1.0  # above all
    expected = logprobs.batched_count_greater_than.__wrapped__(drawn, values)
    found = count_at_least(drawn, values)
    assert found.dtype == expected.dtype and torch.equal(found, expected) and 0 < int(found[0]) < 1000


@pytest.mark.parametrize(("version", "hidden"), [("0.32.1", True), ("0.33.0", False), (None, False)])
def test_only_a_vllm_that_allows_for_it_is_imported_without_inductor(
    monkeypatch: pytest.MonkeyPatch, version: str | None, hidden: bool
) -> None:
    lowering = "torch._inductor.lowering"
    for name in (lowering, "vllm", "vllm.env_override"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(late_inductor, "package_version", lambda package: version)
    with late_inductor.import_without_inductor():
        assert (lowering in sys.modules) is hidden
    assert lowering not in sys.modules


def test_a_function_is_compiled_when_it_is_called_first(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    compiled: list[tuple[str, dict[str, Any]]] = []

    def compile_now(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled.append((getattr(function, "__name__", "module"), options))
        return function

    monkeypatch.setattr(torch, "compile", compile_now)
    module = torch.nn.Identity()
    with late_inductor.compile_when_called():

        @torch.compile(dynamic=True, backend="inductor")
        def double(number: int) -> int:
            return 2 * number

        class Holder:
            @torch.compile
            def method(self, number: int) -> int:
                return number + 1

        assert torch.compile(module) is module and compiled == [("module", {})]  # modules at once
    assert torch.compile is compile_now
    assert [double(3), double(4), Holder().method(1), Holder().method(2)] == [6, 8, 2, 3]
    assert compiled[1:] == [("double", {"dynamic": True, "backend": "inductor"}), ("method", {})]

    with late_inductor.compile_when_called():
        another = torch.compile = lambda function: function
    assert torch.compile is another
