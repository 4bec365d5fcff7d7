"""Decisions per minute: "is each of ten adapters better than the base?", whole commands, from the shell to
the last verdict, nothing started before.

In: a model, a small exam, invented adapters: all but one change little (``bench.planting``). Out: seconds and
decisions per minute of four ways, and what was decided. An adapter is judged when it is shown to be better or
worse, or equal to within ``--margin``, or when all questions are asked and neither is shown ("undecided").

    kmmlu_fast, until decided  measured: one command, base and adapters, ``--until-decided --order adaptive``
    kmmlu_fast, all questions  measured: one command, base and adapters
    lm-eval                    computed: a process per model state, each its measured start and all questions
                               at its measured rate
    lm-eval next               computed: one process, one start, one prefill a question, no reload

lm-eval is given what costs it time elsewhere: its adapters run at the base's rate (served on a CPU they take
eight times as long), merging them, swapping them and the end of its command cost nothing, and its accuracies
count as decisions. KMMLU's 35,030 questions are computed for all four: from each one's rate, lm-eval's start,
all that our whole command took beside asking, and for "until decided" from the passes over the exam that ten
adapters needed in the newest record of ``bench.decide --adapters``. Knows nothing of the statistics.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from bench.common import RESULTS, ROOT, BenchConfig, finish, note, run_child, table
from bench.peers import OURS, PeersConfig, Worker, choose, environment
from bench.table import read_entries
from kmmlu_fast.analysis.base_comparisons import compare_with_base
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError, EngineError, RunError
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.runs.metrics import Speed
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory

EARLY, FULL, TODAY, NEXT = (
    "kmmlu_fast, until decided",
    "kmmlu_fast, all questions",
    "lm-eval",
    "lm-eval next",
)
PEERS = {OURS: "kmmlu_fast", TODAY: "lm-eval-vllm", NEXT: "lm-eval-vllm-next"}
KMMLU_QUESTIONS, KMMLU_ADAPTERS = 35_030, 10
TARGET = 25.0  # times lm-eval today
_VERDICTS = ("better", "worse", "equal", "undecided")


class JudgeConfig(BenchConfig):
    """python -m bench.judge: decisions per minute, ours against lm-eval's today and tomorrow."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    exam: str = Field("sample", description="the small exam that is really asked; --dataset is for the rates")
    limit: PositiveInt | None = Field(None, description="questions a subject of the small exam")
    adapters: PositiveInt = Field(KMMLU_ADAPTERS, description="adapters to judge")
    better: NonNegativeInt = Field(1, description="how many of them are truly better")
    margin: float = Field(10.0, description="pp within which an adapter counts as equal in the small exam")
    peer_questions: PositiveInt = Field(
        45, description="questions of either exam that rates are taken on, spread over the subjects"
    )
    peers: bool = Field(True, description="also lm-eval; --no-peers: the two commands alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a way of asking costs: seconds to its first question, and questions per second after it."""

    start_sec: float
    questions_per_sec: float

    def seconds(self, questions: float, starts: int = 1) -> float:
        return starts * self.start_sec + questions / self.questions_per_sec


def lm_eval_seconds(questions: int, adapters: int, today: Pace, tomorrow: Pace) -> dict[str, float]:
    """Base and adapters over all questions: a process per state, and one process for all."""
    states = adapters + 1
    return {
        TODAY: today.seconds(states * questions, states),
        NEXT: tomorrow.seconds(states * questions),
    }


def kmmlu_seconds(ours: Pace, passes: float, today: Pace, tomorrow: Pace) -> dict[str, float]:
    """Ten adapters on KMMLU. ``passes``: over the exam, for all of them together, beside the base's own."""
    return {
        EARLY: ours.seconds((1 + passes) * KMMLU_QUESTIONS),
        FULL: ours.seconds((KMMLU_ADAPTERS + 1) * KMMLU_QUESTIONS),
        **lm_eval_seconds(KMMLU_QUESTIONS, KMMLU_ADAPTERS, today, tomorrow),
    }


def rows_of(
    exam: str, seconds: dict[str, float], adapters: int, measured: tuple[str, ...]
) -> list[dict[str, Any]]:
    """A row a way; ``times_lm_eval``: how many times as many decisions per minute as lm-eval's today."""
    today = seconds.get(TODAY)
    return [
        {
            "exam": exam,
            "way": way,
            "got": "measured" if way in measured else "computed",
            "sec": round(sec, 1),
            "decisions_per_min": float(f"{60 * adapters / sec:.3g}"),
            "times_lm_eval": round(today / sec, 1) if today else None,
        }
        for way, sec in seconds.items()
    ]


def passes_of_ten(folders: Iterable[Path]) -> tuple[float, str]:
    """Passes over KMMLU until ten adapters are decided, by the newest record, and its command. ConfigError
    if none is recorded.
    """
    files = sorted(path for folder in set(folders) for path in folder.glob("*.json"))
    entry = read_entries(files).get("decide-adapters")
    if entry is None or "ten_adapters" not in entry:
        raise ConfigError(
            "no record says how many questions ten adapters need; run python -m bench.decide"
            " --adapters --record first"
        )
    return float(entry["ten_adapters"]["passes"]), str(entry["command"])


def timed_eval(words: list[str], output: Path) -> tuple[float, list[Run]]:
    """Seconds of one ``kmmlu_fast.eval``, and its runs, the base first. EngineError if it fails."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "kmmlu_fast.eval", "--no-warm-engine", *words, "--output-dir", str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    sec = time.perf_counter() - began
    if done.returncode:
        raise EngineError(f"kmmlu_fast.eval: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    runs = [
        load_run_directory(path, prefix=True)
        for path in sorted(output.iterdir())
        if (path / "config.json").exists()
    ]
    return sec, sorted(runs, key=lambda run: run.config.get("adapter") is not None)


def count_verdicts(verdicts: list[str]) -> dict[str, int]:
    """How many of each, none left out."""
    return {name: verdicts.count(name) for name in _VERDICTS}


def early_verdicts(runs: list[Run]) -> list[str]:
    """What ``--until-decided`` recorded of each adapter."""
    decisions = [run.pass_metrics.decision or {} for run in runs if run.config.get("adapter")]
    return [str(decision.get("verdict", "undecided")) for decision in decisions]


def full_verdicts(runs: list[Run], margin: float) -> list[str]:
    """What a comparison of the complete runs says, corrected for their number."""
    pairs, refused = compare_with_base(runs, ComparisonSettings(margin=margin / 100))
    if refused:
        raise RunError("; ".join(f"{name}: {reason}" for name, reason in refused))
    outcomes = [str(pair.outcome) for pair in pairs]
    return [outcome if outcome in _VERDICTS else "undecided" for outcome in outcomes]


def measure_ours(config: JudgeConfig, folder: Path) -> dict[str, Any]:
    """Both commands on the small exam."""
    note(f"judge: planting {config.adapters} adapters")
    flags = ["--model", config.model, "--dataset", config.exam, "--output", str(folder / "planted")]
    flags += ["--limit", str(config.limit)] if config.limit else []
    nulls = config.adapters - config.better
    planted = run_child(["bench.planting", *flags, "--nulls", str(nulls), "--better", str(config.better)])
    words = ["--model", config.model, "--dataset", config.exam, "--limit-mode", "first"]
    words += ["--dtype", PeersConfig().dtype]  # as the peers compute
    words += ["--limit", str(config.limit)] if config.limit else []
    for path in planted["adapters"]:
        words += ["--adapter", path]
    note("judge: kmmlu_fast until decided")
    early_sec, early = timed_eval(
        [*words, "--until-decided", "--order", "adaptive", "--margin", str(config.margin)],
        folder / "early",
    )
    note("judge: kmmlu_fast, all questions")
    full_sec, full = timed_eval(words, folder / "full")
    runs = {"early": early, "full": full}
    asking = {
        name: sum((run.pass_metrics.speed or Speed()).seconds for run in each) for name, each in runs.items()
    }
    answered = {name: sum(len(run.frame) for run in each) for name, each in runs.items()}
    verdicts = {EARLY: count_verdicts(early_verdicts(early))}
    verdicts[FULL] = count_verdicts(full_verdicts(full, config.margin))
    base, *others = (run.micro for run in full)
    return {
        "questions": len(full[0].frame),
        "answered": answered,
        "asking_sec": {name: round(sec, 1) for name, sec in asking.items()},
        "seconds": {EARLY: early_sec, FULL: full_sec},
        "verdicts": verdicts,
        "accuracy": {"base": round(base, 4), "adapters": [round(value, 4) for value in others]},
    }


def measure_paces(config: JudgeConfig, peers: dict[str, str]) -> dict[str, dict[str, Pace]]:
    """Of each peer on the small exam's questions and on ``--dataset``'s, once if they are the same: {exam:
    {way: pace}}. One process after the other, so that none waits in another's memory.
    """
    exams = {"small": config.exam, "whole": config.dataset_name()}
    if exams["small"] == exams["whole"]:
        exams.pop("whole")
    paces: dict[str, dict[str, Pace]] = {name: {} for name in exams}
    with environment(list(peers.values())) as env, tempfile.TemporaryDirectory() as place:
        chunks = {name: _write_chunks(config, exam, Path(place) / name) for name, exam in exams.items()}
        for way, peer in peers.items():
            note(f"judge: the pace of {peer}")
            worker = Worker(peer, PeersConfig.model_validate({"model": config.model}), env)
            try:
                warm_up, _ = chunks["small"]
                worker.ask(chunk=warm_up)
                for name, (_, chunk) in chunks.items():
                    answer = worker.ask(chunk=chunk)
                    rate = len(answer["letters"]) / answer["seconds"]
                    paces[name][way] = Pace(start_sec=worker.start_sec, questions_per_sec=rate)
            finally:
                worker.close()
    return {**paces, "whole": paces.get("whole", paces["small"])}


def _write_chunks(config: JudgeConfig, exam: str, folder: Path) -> tuple[str, str]:
    """Files of a warm-up and of the timed questions, for ``bench.peer_worker``."""
    folder.mkdir()
    per_subject = -(-config.peer_questions // len(SUBJECTS))
    settings = {"model": config.model, "dataset": exam, "limit": per_subject}
    questions, _ = choose(PeersConfig.model_validate(settings), 0)
    questions = questions[:: max(1, len(questions) // config.peer_questions)][: config.peer_questions]
    paths = []
    for name, chunk in (("warm-up", questions[:2]), ("timed", questions)):
        paths.append(folder / f"{name}.json")
        exemplars: dict[str, list[Any]] = {question.subject: [] for question in chunk}
        content = {"questions": [asdict(question) for question in chunk], "exemplars": exemplars}
        paths[-1].write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return str(paths[0]), str(paths[1])


def measured(config: JudgeConfig) -> dict[str, Any]:
    """All of it, as the JSON line holds it."""
    if config.better > config.adapters:
        raise ConfigError(f"--better {config.better}: there are {config.adapters} adapters; give fewer")
    if config.peers and find_spec("lm_eval") is None:
        raise ConfigError("bench.judge needs lm-eval: bash scripts/setup.sh bench, or give --no-peers")
    passes, source = passes_of_ten([RESULTS, config.results_dir]) if config.peers else (None, None)
    with tempfile.TemporaryDirectory() as folder:
        found = measure_ours(config, Path(folder))
    seconds: dict[str, float] = found.pop("seconds")
    beside_asking = seconds[FULL] - found["asking_sec"]["full"]
    ours = tuple(seconds)
    exam = Path(config.exam).name
    result: dict[str, Any] = {
        "model": Path(config.model).name,
        "adapters": config.adapters,
        "better": config.better,
        "margin_pp": config.margin,
        **found,
    }
    rows = []
    if config.peers and passes is not None:
        same = config.exam == config.dataset_name()
        paces = measure_paces(config, {way: PEERS[way] for way in PEERS if not (same and way == OURS)})
        small, whole = paces["small"], paces["whole"]
        if same:
            rate = found["answered"]["full"] / found["asking_sec"]["full"]
            whole[OURS] = Pace(start_sec=beside_asking, questions_per_sec=rate)
        seconds |= lm_eval_seconds(found["questions"], config.adapters, small[TODAY], small[NEXT])
        ours_whole = replace(
            whole[OURS], start_sec=beside_asking * max(1.0, KMMLU_ADAPTERS / config.adapters)
        )
        kmmlu = kmmlu_seconds(ours_whole, passes, whole[TODAY], whole[NEXT])
        rows = rows_of("KMMLU", kmmlu, KMMLU_ADAPTERS, ())
        result |= {
            "paces": {
                name: {way: asdict(pace) for way, pace in each.items()} for name, each in paces.items()
            },
            "rates_from": Path(config.dataset_name()).name,
            "passes_of_ten_adapters": passes,
            "passes_from": source,
        }
    result["rows"] = [*rows_of(exam, seconds, config.adapters, ours), *rows]
    return result


def shown_verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was decided, by way, with what the words mean."""
    meaning = {
        "better": "shown to be better than the base",
        "worse": "shown to be worse",
        "equal": f"shown to be within {result['margin_pp']:g} pp of the base",
        "undecided": "all questions asked, and none of these shown",
    }
    return [
        {"verdict": name, "means": meaning[name], **{way: counts[name] for way, counts in found.items()}}
        for found in [result["verdicts"]]
        for name in _VERDICTS
    ]


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(JudgeConfig, argv, "python -m bench.judge")
        result = measured(config)
        title = (
            f"Are {result['adapters']} adapters better than the base? {result['questions']} questions,"
            f" {result['better']} truly better"
        )
        tables = [table(title, result["rows"]), table("What was decided", shown_verdicts(result))]
        finish("judge", config, argv, result, tables)
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
