"""Verifies a bundle: recomputes its numbers, re-scores a seeded sample, and accepts or rejects.

In: a ``VerifyConfig``. Out: a ``BundleVerification`` (its module has the tests). Knows nothing of publishing.
"""

from __future__ import annotations

import random
from typing import Any

import polars as pl

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.engines.factory import open_engine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.models.merging import merge_adapter
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.predictions import prediction_logprobs
from kmmlu_fast.shipping.bundle import read_bundle
from kmmlu_fast.shipping.config import VerifyConfig
from kmmlu_fast.shipping.verification import BundleVerification, check_headline, verify_sample


def verify_bundle(config: VerifyConfig) -> BundleVerification:
    """Check the numbers, then a sample if a model is given. RunError for a damaged bundle, ConfigError if its
    questions are not those of ``--dataset``."""
    facts, frame = read_bundle(expand_path(config.bundle[0], "bundle"))
    reasons = check_headline(facts.get("headline") or {}, frame)
    if config.model is None:
        log_note("verify: without --model only the numbers are checked, not the answers")
        return BundleVerification(reasons=tuple(reasons))
    published = frame.filter(pl.col("read_by") == "loglikelihood").with_columns(logprobs_list())
    if published.is_empty():
        raise ConfigError("a sample can be re-scored only of a run with letters' log-probabilities")
    sample = _rescore(config, facts, published)
    return BundleVerification(
        reasons=(*reasons, *sample.reasons),
        questions=sample.questions,
        same_letters=sample.same_letters,
        noise=sample.noise,
        expected_flips=sample.expected_flips,
    )


def _rescore(config: VerifyConfig, facts: dict[str, Any], published: pl.DataFrame) -> BundleVerification:
    ids = sorted(published["question_id"])
    chosen = set(random.Random(config.seed).sample(ids, min(config.sample, len(ids))))
    plan = make_eval_plan(_eval_config(config, facts))
    try:
        rows = {row["question_id"]: row for row in published.iter_rows(named=True)}
        items = [item for item in plan.asked if item.question.question_id in chosen]
        if len(items) < len(chosen):
            raise ConfigError(
                f"{len(chosen) - len(items)} of {len(chosen)} sampled questions are not in the dataset;"
                " give the"
                " one that was published with --dataset"
            )
        answers = _ask(plan, items, facts)
        order = sorted(answers)
        other_prompts = sum(rows[name]["prompt_digest"] != answers[name][1] for name in order)
        result = verify_sample(
            [rows[name]["logprobs"] for name in order],
            [answers[name][0] for name in order],
            [answers[name][2] for name in order],
        )
    finally:
        plan.close()
    if other_prompts:
        log_note(f"verify: {other_prompts} of {len(order)} prompts have other token ids here than published")
    return result


def _ask(plan: EvalPlan, items: list[Any], facts: dict[str, Any]) -> dict[str, tuple[Any, str, int]]:
    """By question: log-probabilities, the prompt's digest, the key's place."""
    if not isinstance(plan.method, MultipleChoice):
        raise ConfigError("a sample can be re-scored only of a multiple-choice run of single-token letters")
    adapter = plan.adapters[0] if plan.adapters else None
    if (adapter is None) != (facts.get("adapter_digest") is None) and plan.config.engine != "llama-cpp":
        raise ConfigError(
            f"the bundle is of {facts.get('state')}: {'give' if adapter is None else 'leave out'} --adapter"
        )
    merged = str(merge_adapter(plan.model, adapter, plan.config.dtype)) if adapter else None
    requests = [
        request for item in items for request in plan.method.start(item.question, item.token_id_lists(), None)
    ]
    answers = {}
    with report_wait(f"verify: re-scoring {len(items)} questions"):
        engine = open_engine(plan.config, plan.model, [], plan.max_model_len, merged)
        try:
            questions = {item.question.question_id: item.question for item in items}
            for reply in engine.generate(requests):
                question = questions[reply.request.question_id]
                found = plan.method.finish(question, [reply])
                key = question.letters.index(question.answer)
                answers[question.question_id] = (prediction_logprobs(found), found.prompt_digest, key)
        finally:
            engine.close()
    return answers


def _eval_config(config: VerifyConfig, facts: dict[str, Any]) -> EvalConfig:
    """How the bundle's questions were asked, with the verifier's own model, data and engine."""
    asked = facts.get("config") or {}
    parts = facts.get("fingerprint_parts") or {}
    values: dict[str, Any] = {
        "model": config.model,
        "adapter": [config.adapter] if config.adapter else [],
        "exam": [facts.get("exam") or "kmmlu"],
        "split": asked.get("split", "test"),
        "num_fewshot": asked.get("num_fewshot", 0),
        "prompt_style": parts.get("prompt_style"),
        "letter_form": (parts.get("decoding") or {}).get("letter_form"),
    }
    if config.dataset:
        values["dataset"] = config.dataset
    if config.engine:
        values["engine"] = config.engine
    return build_config(EvalConfig, **values)
