"""One peer in a process of its own: loads its engine once, then answers chunks of questions when asked.

In: JSON lines on stdin ({"chunk": FILE, "shots": N, ...}). Out: JSON lines on the pipe ``--reply``: seconds
by the clock and of CPU, with ``--stages`` where they went in vLLM, and the four log-probabilities of each
question. Every peer is timed from questions in memory to predictions
and metrics, tokenisation included. Knows nothing of ratios.

    kmmlu_fast    this project: one prefill a question, in process, predictions stored and summarised
    lm-eval-vllm  lm-evaluation-harness, its ``vllm`` backend, task ``kmmlu`` (local copies of the same
    questions)
    lm-eval-vllm-next  the same with one prefill a question, as an open pull request does it
    (``bench.lm_eval_next``)
    lm-eval-hf    the same with its ``hf`` backend, at the batch size that was fastest on the first questions
    plain         a transformers loop at batch 2, as in the public experiment, with lm-eval's wording
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, PositiveInt

from bench.stages import Stages
from kmmlu_fast.command.flags import Config, parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, Question
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.prompting.method_choice import prompt_letter_tokens
from kmmlu_fast.prompting.prompts import render_prompt

Letters = dict[str, list[float]]  # question id -> log-probabilities A-D
PEERS = ("kmmlu_fast", "lm-eval-vllm", "lm-eval-vllm-next", "lm-eval-hf", "plain")
PLAIN_BATCH = 2


class WorkerConfig(Config):
    """python -m bench.peer_worker: internal to bench.peers."""

    peer: Literal["kmmlu_fast", "lm-eval-vllm", "lm-eval-vllm-next", "lm-eval-hf", "plain"] = Field(
        description="which peer this process is"
    )
    model: str = Field("demo", description="hub id, directory, or 'demo'")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="compute type")
    max_model_len: PositiveInt = Field(4096, description="longest prompt, tokens")
    hf_batch_sizes: list[int] = Field([1, 2, 4], description="lm-eval-hf: batch sizes to try")
    stages: bool = Field(False, description="peers on vLLM: also seconds by stage of the engine")
    reply: int = Field(description="file descriptor for answers")


class Peer(Protocol):
    """Loaded once; ``ask`` returns what to run (timed), and what is prepared before it (not timed)."""

    def ask(
        self, questions: list[Question], exemplars: dict[str, list[Question]]
    ) -> Callable[[], Letters]: ...

    def tune(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> dict[str, Any]:
        """Settings found on a few questions before timing; {} = nothing to find."""
        ...

    def about(self) -> dict[str, Any]: ...

    def vllm(self) -> Any:
        """vLLM's engine in this process; None for a peer without one."""
        ...


class KmmluFast:
    """This project's own path: prepare, run, store, summarise."""

    def __init__(self, config: WorkerConfig, path: str) -> None:
        from kmmlu_fast.engines.vllm.cpu_kernels import compile_fused_norms
        from kmmlu_fast.engines.vllm.engine import EngineSettings
        from kmmlu_fast.engines.vllm.start import start_vllm
        from kmmlu_fast.models.model import load_tokenizer, resolve_model

        self.tokenizer = load_tokenizer(resolve_model(config.model))
        self.engine = start_vllm(
            EngineSettings(
                model=path, dtype=config.dtype, max_model_len=config.max_model_len, generates=False
            )
        )
        compile_fused_norms()

    def ask(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> Callable[[], Letters]:
        return lambda: self._run(questions, exemplars)

    def _run(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> Letters:
        from kmmlu_fast.analysis import accuracy as analysis
        from kmmlu_fast.evaluation import runner
        from kmmlu_fast.prompting import tokens
        from kmmlu_fast.prompting.methods import MultipleChoice
        from kmmlu_fast.runs import store

        letters = prompt_letter_tokens("lm-eval", questions, exemplars, self.tokenizer)
        if letters.ids is None:
            raise ConfigError(
                f"--model: the peers are compared where each letter is one token, and {letters.reason}"
            )
        method = MultipleChoice("lm-eval", letters.ids)
        asked, _ = tokens.render_and_tokenise(questions, exemplars, method, self.tokenizer)
        with tempfile.TemporaryDirectory() as folder:
            sink = store.RunStore(Path(folder), "peer", {}, {})
            runner.ask_questions(self.engine, asked, method, None, sink, "kmmlu_fast")
            frame = sink.finish([q.question_id for q in questions], analysis.summarise_predictions, {}).frame
        return {row[0]: list(row[1:]) for row in frame.select("question_id", *LOGPROB_COLUMNS).iter_rows()}

    def tune(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> dict[str, Any]:
        return {}

    def about(self) -> dict[str, Any]:
        return self.engine.stats()

    def vllm(self) -> Any:
        return self.engine._engine


class LmEval:
    """lm-evaluation-harness through its own ``evaluate``; tasks are its ``kmmlu`` with local
    files in place of the hub.
    """

    def __init__(self, config: WorkerConfig, path: str) -> None:
        on_vllm = config.peer in ("lm-eval-vllm", "lm-eval-vllm-next")
        self.batch_sizes = [] if on_vllm else config.hf_batch_sizes
        if on_vllm:
            from kmmlu_fast.engines.vllm.engine import prepare_environment

            prepare_environment(gpu=has_gpu())
            os.environ.setdefault(
                "VLLM_CPU_KVCACHE_SPACE", "2"
            )  # GiB; by itself it takes most of the machine
            from lm_eval.models.vllm_causallms import VLLM

            from bench.lm_eval_next import make_next_model

            make_model = VLLM if config.peer == "lm-eval-vllm" else make_next_model
            eager = {} if has_gpu() else {"enforce_eager": True}
            self.lm: Any = make_model(
                path, dtype=config.dtype, batch_size="auto", max_model_len=config.max_model_len, **eager
            )
        else:
            from lm_eval.models.huggingface import HFLM

            device = "cuda" if has_gpu() else "cpu"
            self.lm = HFLM(
                path,
                dtype=config.dtype,
                batch_size=self.batch_sizes[0],
                device=device,
                max_length=config.max_model_len,
            )

    def ask(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> Callable[[], Letters]:
        from lm_eval.evaluator import evaluate
        from lm_eval.tasks import TaskManager

        with tempfile.TemporaryDirectory() as folder:
            names = write_tasks(Path(folder), questions, exemplars)
            tasks = TaskManager(include_path=folder, include_defaults=False).load(list(names))
        order = {
            name: [q.question_id for q in questions if q.subject == subject]
            for name, subject in names.items()
        }

        def run() -> Letters:
            found = evaluate(self.lm, tasks, bootstrap_iters=0, log_samples=True)
            samples = found["samples"]
            return {
                order[name][sample["doc_id"]]: [float(pair[0]) for pair in sample["filtered_resps"]]
                for name in names
                for sample in samples[name]
            }

        return run

    def tune(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> dict[str, Any]:
        if len(self.batch_sizes) < 2:
            return {}
        seconds = {}
        for size in self.batch_sizes:
            self.lm.batch_size_per_gpu = size
            run = self.ask(questions, exemplars)
            began = time.perf_counter()
            run()
            seconds[size] = round(time.perf_counter() - began, 3)
        self.lm.batch_size_per_gpu = min(seconds, key=lambda size: seconds[size])
        return {"batch_size": self.lm.batch_size_per_gpu, "tried_sec": seconds}

    def about(self) -> dict[str, Any]:
        return {}

    def vllm(self) -> Any:
        model = getattr(self.lm, "model", None)
        return getattr(model, "llm_engine", None)


def write_tasks(
    folder: Path, questions: list[Question], exemplars: dict[str, list[Question]]
) -> dict[str, str]:
    """lm-eval's ``kmmlu`` for each subject over files in ``folder``; exemplars in the file's
    order. Task name -> subject.
    """
    import lm_eval
    import polars as pl
    import yaml

    base = Path(lm_eval.__file__).parent / "tasks" / "kmmlu" / "default" / "_default_kmmlu_yaml"
    names = {
        f"bench_kmmlu_{subject.lower().replace('-', '_')}": subject
        for subject in dict.fromkeys(q.subject for q in questions)
    }
    for name, subject in names.items():
        files = {}
        shown = exemplars[subject]
        for split, rows in (("test", [q for q in questions if q.subject == subject]), ("dev", shown)):
            if rows:
                files[split] = str(
                    folder / f"{name}-{split}.parquet"
                )  # not CSV: its reader would guess numbers in options
                answers = [LETTERS.index(q.answer) + 1 for q in rows]
                options = {letter: [q.options[i] for q in rows] for i, letter in enumerate(LETTERS)}
                pl.DataFrame(
                    {"question": [q.question for q in rows], **options, "answer": answers}
                ).write_parquet(files[split])
        task: dict[str, Any] = {
            "include": str(base),
            "task": name,
            "dataset_path": "parquet",
            "num_fewshot": len(shown),
        }
        task["dataset_kwargs"] = {"data_files": files, "cache_dir": str(folder / "cache")}
        task |= {"fewshot_config": {"sampler": "first_n"}} if shown else {"fewshot_split": None}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    return names


class Plain:
    """What many write first: pad two prompts, run the model, look at the last position."""

    def __init__(self, config: WorkerConfig, path: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.device = "cuda" if has_gpu() else "cpu"
        self.model = (
            AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, config.dtype))
            .to(self.device)
            .eval()
        )

    def ask(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> Callable[[], Letters]:
        return lambda: dict(self._run(questions, exemplars))

    def _run(
        self, questions: list[Question], exemplars: dict[str, list[Question]]
    ) -> Iterator[tuple[str, list[float]]]:
        import torch

        texts = [render_prompt(q, exemplars[q.subject], "lm-eval").text for q in questions]
        letters = [
            self.tokenizer("： " + letter, add_special_tokens=False)["input_ids"][-1] for letter in LETTERS
        ]
        for start in range(0, len(texts), PLAIN_BATCH):
            batch = self.tokenizer(texts[start : start + PLAIN_BATCH], return_tensors="pt", padding=True).to(
                self.device
            )
            with torch.no_grad():
                logits = self.model(**batch).logits[:, -1].float()
            for question, row in zip(
                questions[start : start + PLAIN_BATCH],
                logits.log_softmax(-1)[:, letters].tolist(),
                strict=True,
            ):
                yield question.question_id, row

    def tune(self, questions: list[Question], exemplars: dict[str, list[Question]]) -> dict[str, Any]:
        return {"batch_size": PLAIN_BATCH}

    def about(self) -> dict[str, Any]:
        return {}

    def vllm(self) -> Any:
        return None


def _chunk(message: dict[str, Any]) -> tuple[list[Question], dict[str, list[Question]]]:
    content = json.loads(Path(message["chunk"]).read_text(encoding="utf-8"))

    def question(row: dict[str, Any]) -> Question:
        return Question(**{**row, "options": tuple(row["options"])})

    exemplars = {name: [question(row) for row in rows] for name, rows in content["exemplars"].items()}
    return [question(row) for row in content["questions"]], exemplars


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(WorkerConfig, argv, "python -m bench.peer_worker")
        os.dup2(2, 1)  # what the peers print must not mix with the bench's own output
        with os.fdopen(config.reply, "w", buffering=1) as replies:
            from kmmlu_fast.models.model import resolve_model

            path = resolve_model(config.model).path
            kinds: dict[str, Callable[[WorkerConfig, str], Peer]] = {
                "kmmlu_fast": KmmluFast,
                "lm-eval-vllm": LmEval,
                "lm-eval-vllm-next": LmEval,
                "lm-eval-hf": LmEval,
                "plain": Plain,
            }
            peer = kinds[config.peer](config, path)
            stages = Stages(peer.vllm()) if config.stages and peer.vllm() is not None else None
            print(json.dumps({"ready": True}), file=replies)
            for line in sys.stdin:
                message = json.loads(line)
                questions, exemplars = _chunk(message)
                if message.get("tune"):
                    print(json.dumps(peer.tune(questions, exemplars)), file=replies)
                    continue
                run = peer.ask(questions, exemplars)
                if stages is not None:
                    stages.clear()
                before, began, cpu_began = peer.about(), time.perf_counter(), time.process_time()
                letters = run()
                answer = {
                    "seconds": time.perf_counter() - began,
                    "cpu_seconds": time.process_time() - cpu_began,
                    "letters": letters,
                    "before": before,
                    "after": peer.about(),
                    "stages": {name: [sec, stages.calls[name]] for name, sec in stages.seconds.items()}
                    if stages is not None
                    else {},
                }
                print(json.dumps(answer), file=replies)
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
