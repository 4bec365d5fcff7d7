"""A GGUF file's letters by this project's llama.cpp engine, and by lm-eval's ``gguf`` backend, in one run.

    python -m bench.gguf --model ship/gguf/lora-bf16.gguf --server-python VENV/bin/python

In: a GGUF file, and a Python that has ``llama-cpp-python[server]``. Out: questions/s of each, how many times
faster this project is, and how many letters agree beyond near ties. lm-eval's backend is its own class,
unmodified: four requests a question, one after the other, each an echo of the whole prompt with the
log-probabilities of all its tokens. llama.cpp's own server refuses or ignores ``echo`` (the result says
which), so that the backend needs llama-cpp-python's; that package has no wheel and is built where it is used.
The server starts with ``--logits_all``, without which it cannot echo, and with as many threads as this
project's engine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.letters import argmax_index
from kmmlu_fast.core.schema import LETTERS, Candidates, Question, Request

WANTED_TIMES = 10.0
NEAR_TIE_NATS = 0.25
_START_SEC = 180.0
_CONTEXT_TOKENS = 2048  # lm-eval's own default


class GgufConfig(BenchConfig):
    """python -m bench.gguf: a GGUF file by this project and by lm-eval's gguf backend."""

    model: str = Field(description="the GGUF file")
    server_python: Path | None = Field(None, description="a Python with llama-cpp-python[server]")
    questions: PositiveInt = Field(90, description="questions that this project is asked")
    peer_requests: PositiveInt = Field(
        8, description="requests of lm-eval's backend, four for a question: the first of those questions"
    )


@contextlib.contextmanager
def peer_server(config: GgufConfig) -> Iterator[str]:
    """llama-cpp-python's server with the file; its address. EngineError if it does not start."""
    if config.server_python is None:
        raise ConfigError("--server-python is not given: name a Python that has llama-cpp-python[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    threads = str(len(os.sched_getaffinity(0)))
    flags = ["--model", config.model, "--logits_all", "true", "--n_ctx", str(_CONTEXT_TOKENS)]
    flags += ["--n_threads", threads, "--n_threads_batch", threads, "--port", str(port)]
    command = [str(config.server_python), "-m", "llama_cpp.server", *flags]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _START_SEC
        while not _answers(f"{address}/v1/models"):
            if process.poll() is not None or time.monotonic() > until:
                raise EngineError(f"{' '.join(command)}: did not start")
            time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def own_server_refusal(path: str) -> str:
    """What llama.cpp's own server says to lm-eval's request; "" if it gives what the backend reads."""
    from kmmlu_fast.models.llama_cpp import LlamaCppModel

    model = LlamaCppModel(Path(path), context_tokens=256)
    body = {"prompt": "a b", "logprobs": 10, "temperature": 0.0, "max_tokens": 1, "echo": True}
    try:
        reply = model.post("/v1/completions", body)
        if "token_logprobs" not in reply["choices"][0]["logprobs"]:
            return "answers without the prompt's log-probabilities: it ignores echo"
    except EngineError as error:
        return str(error)
    finally:
        model.close()
    return ""


def ask_ours(config: GgufConfig, questions: list[Question]) -> tuple[float, float, list[list[float]]]:
    """(seconds to start, seconds, log-probabilities by question): tokenisation included."""
    from kmmlu_fast.engines.llama_cpp.engine import LlamaCppEngine, LlamaCppSettings
    from kmmlu_fast.models.model import resolve_model
    from kmmlu_fast.models.tokens import open_tokenizer
    from kmmlu_fast.prompting.prompts import encode_prompts, letter_tokens, render_prompt

    tokenizer = open_tokenizer(resolve_model(config.model))
    engine = LlamaCppEngine(LlamaCppSettings(path=Path(config.model), max_model_len=_CONTEXT_TOKENS))
    prompts = [render_prompt(question, [], "lm-eval") for question in questions]
    began = time.perf_counter()
    token_ids = encode_prompts(tokenizer, prompts)
    letters = letter_tokens(tokenizer, prompts, token_ids, "lm-eval")
    if letters.ids is None:
        raise ConfigError(f"--model {config.model}: {letters.reason}")
    wanted = Candidates(letters.ids)
    requests = [
        Request(question_id=str(n), stage="letters", token_ids=tuple(ids), want=wanted)
        for n, ids in enumerate(token_ids)
    ]
    answers = {reply.request.question_id: list(reply.logprobs or ()) for reply in engine.generate(requests)}
    seconds = time.perf_counter() - began
    start_sec = engine.start_sec
    engine.close()
    tokenizer.close()
    return start_sec, seconds, [answers[str(n)] for n in range(len(questions))]


def ask_peer(address: str, questions: list[Question], count: int) -> tuple[float, list[list[float]]]:
    """(seconds, log-probabilities of each whole question) of ``count`` requests by lm-eval's own class."""
    from lm_eval.models.gguf import GGUFLM

    from kmmlu_fast.prompting.prompts import render_prompt

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    peer = GGUFLM(base_url=address)
    requests = [
        SimpleNamespace(args=(render_prompt(question, [], "lm-eval").text, f" {letter}"))
        for question in questions
        for letter in LETTERS
    ][:count]
    began = time.perf_counter()
    found = peer.loglikelihood(requests, disable_tqdm=True)
    seconds = time.perf_counter() - began
    return seconds, [
        [logprob for logprob, _ in found[place : place + len(LETTERS)]]
        for place in range(0, len(found) - len(LETTERS) + 1, len(LETTERS))
    ]


def compare_letters(ours: list[list[float]], peers: list[list[float]]) -> dict[str, int]:
    """Letters that agree, and that differ beyond near ties."""
    pairs = list(zip(ours, peers, strict=True))
    changed = [one for one, two in pairs if argmax_index(one) != argmax_index(two)]
    beyond = sum(sorted(row)[-1] - sorted(row)[-2] > NEAR_TIE_NATS for row in changed)
    return {"same_letters": len(pairs) - len(changed), "changed_beyond_ties": beyond}


def measure(config: GgufConfig) -> dict[str, Any]:
    """Both, one after the other; this project twice, before and after, so that a busy minute shows."""
    from kmmlu_fast.data.dataset import load_questions

    questions = load_questions(config.dataset_name(), "test", None)[: config.questions]
    count = min(config.peer_requests, len(LETTERS) * len(questions))
    refusal = own_server_refusal(config.model)
    note(f"llama.cpp's own server: {refusal or 'answers'}")
    start_sec, before_sec, ours = ask_ours(config, questions)
    note(f"kmmlu_fast: {len(questions) / before_sec:.2f} questions/s")
    with peer_server(config) as address:
        peer_sec, peers = ask_peer(address, questions, count)
    peer_rate = count / len(LETTERS) / peer_sec
    note(f"lm-eval gguf: {peer_rate:.4f} questions/s")
    _, after_sec, _ = ask_ours(config, questions)
    slower_sec = max(before_sec, after_sec)
    our_rate = len(questions) / slower_sec
    return {
        "model": Path(config.model).name,
        "own_server_says": refusal,
        "start_sec": round(start_sec, 2),
        "questions": len(questions),
        "seconds": [round(before_sec, 2), round(after_sec, 2)],
        "questions_per_sec": round(our_rate, 2),
        "peer_requests": count,
        "peer_seconds": round(peer_sec, 2),
        "peer_questions_per_sec": round(peer_rate, 5),
        **compare_letters(ours[: len(peers)], peers),
        "times_faster": round(our_rate / peer_rate, 1),
        "reached": our_rate / peer_rate >= WANTED_TIMES,
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse_config(GgufConfig, argv, "python -m bench.gguf")
    row = measure(config)
    finish("gguf", config, argv, row, [table("A GGUF file's letters", [row])])
    return 0


if __name__ == "__main__":
    sys.exit(main())
