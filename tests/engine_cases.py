"""What the engines are compared on: one tiny model with an adapter, all kinds of requests, and the in-process
answers.

The answers are computed once a test session, by ``VllmEngine``; the other engines must give them up to
rounding.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import (
    LOGPROB_COLUMNS,
    Adapter,
    Candidates,
    Continuation,
    Generation,
    Request,
    Response,
)
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.runs.run import Run

LETTER_IDS = (262, 263, 264, 265)  # " A".." D" in the tiny tokenizer
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "HF_HUB_OFFLINE": "1",
}
START_TIMEOUT_SEC = 400
_files: Files | None = None


@dataclass(frozen=True)
class Files:
    model: Path
    adapter: Adapter

    @property
    def settings(self) -> EngineSettings:
        return EngineSettings(
            model=str(self.model),
            dtype="float32",
            max_model_len=1024,
            max_num_seqs=16,
            max_lora_rank=4,
            num_adapters=1,
            samples=True,
        )


def files(tmp_path_factory: Any) -> Files:
    """The model and adapter, made once a test session."""
    global _files
    if _files is None:
        root = tmp_path_factory.mktemp("engines")
        model = make_tiny_model(root / "model")
        make_tiny_adapter(model, root / "lora", seed=1)
        [adapter] = load_adapters([str(root / "lora")], resolve_model(str(model)), "serve")
        _files = Files(model, adapter)
    return _files


def requests(adapter: Adapter | None = None, questions: int = 60) -> list[Request]:
    """Letters, with a shared prefix a subject; for the base also a few generations (some
    sampled) and a few continuations.
    """
    draw = random.Random(0)
    made = []
    for subject in ("Invented-One", "Invented-Two"):
        prefix = tuple(draw.randrange(6, 262) for _ in range(300))
        for row in range(questions // 2):
            tokens = prefix + tuple(draw.randrange(6, 262) for _ in range(30 + row))
            name = f"{subject}/test/{row}"
            stage = f"letters-{adapter.name if adapter else 'base'}"
            made.append(
                Request(
                    question_id=name,
                    stage=stage,
                    token_ids=tokens,
                    want=Candidates(LETTER_IDS),
                    adapter=adapter,
                )
            )
            if row % 5 == 0 and not adapter:
                text = Generation(max_tokens=12, stop=("\n",), include_stop=True)
                some = Generation(max_tokens=6, num_samples=2, temperature=0.5, seed=row)
                made.append(Request(question_id=name, stage="reason", token_ids=tokens, want=text))
                made.append(Request(question_id=name, stage="sampled", token_ids=tokens, want=some))
                made.append(
                    Request(question_id=name, stage="continuation", token_ids=tokens, want=Continuation(3))
                )
    return made


def follow_up(response: Response) -> list[Request]:
    """A letter after the model's own tokens, as chain of thought forces one."""
    request = response.request
    if request.stage != "reason":
        return []
    tokens = request.token_ids + response.completions[0].token_ids + (30, 31)
    return [
        Request(
            question_id=request.question_id, stage="forced-0", token_ids=tokens, want=Candidates(LETTER_IDS)
        )
    ]


def ask(engine: Engine, files: Files) -> Iterator[Response]:
    """Base, then adapter, one after the other as ``runner`` does it. vLLM 0.32 on CPU applies the adapter to
    base requests *in the same batch* (its torch kernels take "no adapter", index -1, for the last adapter),
    so that they must never be mixed there.
    """
    for adapter in (None, files.adapter):
        yield from engine.generate(requests(adapter), follow_up)


@cache
def in_process(files: Files) -> list[Response]:
    os.environ.update(ENVIRONMENT)
    engine = VllmEngine(files.settings)
    responses = list(ask(engine, files))
    engine.close()
    return responses


def flags(files: Files, output_dir: Path) -> list[str]:
    """An evaluation as users run it, base and adapter: 45 questions of the sample, one a subject."""
    made = [
        "--model",
        str(files.model),
        "--adapter",
        f"lora={files.adapter.path}",
        "--adapter-mode",
        "serve",
        "--dtype",
        "float32",
    ]
    return [
        *made,
        "--dataset",
        "sample",
        "--limit",
        "1",
        "--max-num-seqs",
        "16",
        "--output-dir",
        str(output_dir),
    ]


@cache
def evaluated(files: Files) -> list[pl.DataFrame]:
    """Predictions of base and adapter, in process."""
    os.environ.update(ENVIRONMENT)
    config = parse_config(EvalConfig, flags(files, files.model.parent / "runs-in-process"), "eval")
    return [run.predictions for run in run_evaluation(config)]


def assert_same_predictions(runs: Iterable[Run], files: Files) -> None:
    """The same questions, each once, and the same letters but for near-ties."""
    frames = [run.predictions for run in runs]
    assert len(frames) == 2
    for frame, reference in zip(frames, evaluated(files), strict=True):
        assert frame["question_id"].to_list() == reference["question_id"].to_list()
        assert frame["question_id"].n_unique() == 45
        for column in LOGPROB_COLUMNS:
            assert (frame[column] - reference[column]).abs().max() < 1e-3
        clear = reference["margin"] > 1e-3
        assert frame.filter(clear)["prediction"].to_list() == reference.filter(clear)["prediction"].to_list()
    assert frames[0]["prediction"].to_list() != frames[1]["prediction"].to_list(), (
        "the adapter must change something"
    )


def assert_same(
    responses: Iterable[Response], reference: Iterable[Response], tolerance: float = 1e-3
) -> None:
    """Every request answered exactly once, with the reference's numbers up to rounding and its
    tokens but for near-ties.
    """
    got, wanted = list(responses), {r.request.key: r for r in reference}
    assert sorted(r.request.key for r in got) == sorted(wanted), "a response is missing or came twice"
    texts = same_texts = 0
    for response in got:
        other = wanted[response.request.key]
        assert response.followed_by == other.followed_by
        assert len(response.logprobs) == len(other.logprobs)
        if (
            response.request.token_ids == other.request.token_ids
        ):  # a forced answer follows a text, which a near-tie may have turned
            difference = max(
                (abs(a - b) for a, b in zip(response.logprobs, other.logprobs, strict=True)), default=0.0
            )
            assert difference < tolerance, (response.request.key, response.logprobs, other.logprobs)
        assert replace(response.request, token_ids=()) == replace(other.request, token_ids=())
        texts += len(response.completions)
        same_texts += sum(a == b for a, b in zip(response.completions, other.completions, strict=True))
    assert texts and same_texts >= 0.9 * texts, f"{same_texts} of {texts} texts agree"


class Server:
    """A real vLLM server on the tiny model, in a process group of its own so that SIGKILL takes all of it."""

    def __init__(self, files: Files, log: Path | None = None) -> None:
        self.files = files
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log or files.model.parent / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(self.files.model),
            "--dtype",
            "float32",
        ]
        command += [
            "--max-model-len",
            "1024",
            "--max-num-seqs",
            "16",
            "--enforce-eager",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += [
            "--enable-prompt-tokens-details",
            "--enable-lora",
            "--max-lora-rank",
            "8",
            "--no-enable-chunked-prefill",
        ]
        with self._log.open("ab") as log:
            environment = {**os.environ, **ENVIRONMENT}
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_SEC
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), opener.open(f"http://127.0.0.1:{self.port}/health", timeout=5):
                return
            time.sleep(1)
        raise RuntimeError("the server did not start:\n" + self._log.read_text(errors="replace")[-3000:])

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
