"""KMMLU's fingerprints and run names are what they were before other exams came: finished runs are still
found."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.run_names import run_name

# Written by the code of 2026-11-24, before a question could have other than four options; the model's own
# digest and the
# versions of libraries are left out of the digest, for they may differ between machines.
KNOWN = {
    "": ("1fa633b53b10", "lmeval-0shot-mc"),
    "--prompt-style qa --num-fewshot 2": ("2b8a13f6b61c", "qa-2shot-mc"),
    "--prompt-style chat": ("c5654dc3c667", "chat-0shot-mc"),
    "--rotations 4": ("a283b4230d75", "lmeval-0shot-mc"),
    "--rotations 2": ("1733933cf749", "lmeval-0shot-mc"),
    "--output-type generate_until": ("0de7b267be36", "lmeval-0shot-gen"),
    "--output-type cot": ("bf2a7c348d9e", "chat-0shot-cot"),
    "--output-type cot --prompt-style qa --cot-below 0.5": ("a005699c36f8", "qa-0shot-cot"),
    "--limit 3 --subjects STEM": ("cd2204dd6dfa", "lmeval-0shot-mc"),
}


@pytest.mark.parametrize("flags", KNOWN)
def test_a_kmmlu_run_has_the_fingerprint_it_had(flags: str, model: Path, tmp_path: Path) -> None:
    argv = ["--model", str(model), "--dataset", "sample", "--output-dir", str(tmp_path), *flags.split()]
    plan = make_eval_plan(parse_config(EvalConfig, argv, "eval"))
    neutral = {"model": "m", "model_digest": "d", "model_revision": None, "versions": {}}
    parts = {**plan.parts, **neutral, "adapter_digest": None}
    plan.close()
    known, name = KNOWN[flags]
    assert (compute_fingerprint(parts), run_name(plan, None)) == (known, f"base-base-sample-test-{name}")
