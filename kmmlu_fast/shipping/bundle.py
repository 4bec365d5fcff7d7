"""A text-free bundle of a run: everything that its numbers follow from, and no word of a question.

In: a complete run with predictions. Out: names and contents of files: ``answers.parquet`` (ids, letters,
log-probabilities, digests), ``run.json`` (protocol, headline, environment), ``eval.json`` and
``samples.jsonl`` (a record of the Every Eval Ever schema 0.3.0, vendored in ``schemas``), ``manifest.json``
(digests of the rest). Knows nothing of hubs.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import summarise_predictions
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import make_slug, parquet_bytes
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.core.version import __version__
from kmmlu_fast.runs.run import Run, fill_prediction_columns

ANSWERS, RUN, MANIFEST, RECORD, SAMPLES = (
    "answers.parquet",
    "run.json",
    "manifest.json",
    "eval.json",
    "samples.jsonl",
)
FORMAT, SCHEMA_VERSION = 1, "0.3.0"
_TEXT_COLUMNS = ("texts",)
_HEADLINE = ("num_questions", "micro", "macro", "supercategories", "subjects")
# Of a run's config: what says how it was asked, and no path of the publisher's machine.
_CONFIG_KEYS = (
    "split",
    "num_fewshot",
    "output_type",
    "prompt_style",
    "rotations",
    "thinking",
    "seed",
    "engine",
)
_ENVIRONMENT_KEYS = ("kmmlu_fast", "python", "versions", "device", "engine")


def make_bundle(run: Run) -> dict[str, bytes]:
    """The files of the run's bundle. RunError for a run without predictions, or one that stopped early."""
    if run.kind != "run" or run.prefix is not None:
        raise RunError(f"{run.source}: only a complete run directory can be published")
    frame = run.frame.drop(*_TEXT_COLUMNS)
    summary = summarise_predictions(run.frame).to_json()
    headline = {key: summary[key] for key in _HEADLINE}
    facts = describe_run(run, headline)
    files = {ANSWERS: parquet_bytes(frame), RUN: _json_bytes(facts)}
    files[SAMPLES] = _instance_lines(run, facts)
    files[RECORD] = _json_bytes(evaluation_record(run, facts, hashlib.sha256(files[SAMPLES]).hexdigest()))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[MANIFEST] = _json_bytes({"format": FORMAT, "sha256": digests})
    return files


def describe_run(run: Run, headline: dict[str, Any]) -> dict[str, Any]:
    """``run.json``: what was asked of what, and the numbers."""
    adapter = run.config.get("adapter") or {}
    settings = run.config.get("config") or {}
    model = str(run.facts.get("model", ""))
    return {
        "format": FORMAT,
        "name": run.name,
        "model": Path(model).name if model.startswith(("/", "~", ".")) else model,
        "state": run.state,
        "adapter_digest": adapter.get("digest"),
        "exam": run.exam,
        "licence": run.licence,
        "fingerprint": run.config.get("fingerprint"),
        "fingerprint_parts": run.facts,
        "config": {key: settings[key] for key in _CONFIG_KEYS if key in settings},
        "environment": {key: run.environment[key] for key in _ENVIRONMENT_KEYS if key in run.environment},
        "finished": run.environment.get("finished"),
        "headline": headline,
    }


def evaluation_record(run: Run, facts: dict[str, Any], samples_digest: str) -> dict[str, Any]:
    """``eval.json``: the run as a record of Every Eval Ever (``schemas/eval.schema.json``)."""
    headline, identity = facts["headline"], evaluation_id(facts)
    engine = facts["environment"].get("engine") or {}
    source = {
        "dataset_name": run.exam_title,
        "source_type": "hf_dataset",
        "hf_split": str(facts["config"].get("split", "test")),
        "samples_number": headline["num_questions"],
    }
    if run.exam == "kmmlu":
        source["hf_repo"] = "HAERAE-HUB/KMMLU"
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": identity,
        "evaluation_timestamp": str(facts["finished"] or "unknown"),
        "retrieved_timestamp": str(int(time.time())),
        "source_metadata": {
            "source_name": "kmmlu_fast",
            "source_type": "evaluation_run",
            "source_organization_name": "the publisher of this repository",
            "evaluator_relationship": "first_party",
        },
        "eval_library": {"name": "kmmlu_fast", "version": __version__},
        "model_info": {
            "name": f"{facts['model']} ({facts['state']})",
            "id": facts["model"] or "unknown",
            "inference_engine": {"name": str(engine.get("engine", "unknown"))},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights",
                "adapter_digest": str(facts["adapter_digest"] or "none"),
                "fingerprint": str(facts["fingerprint"]),
            },
        },
        "evaluation_results": [
            _evaluation_result(kind, headline, source, facts) for kind in ("micro", "macro")
        ],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": _datastore_path(facts),
            "hash_algorithm": "sha256",
            "checksum": samples_digest,
            "total_rows": headline["num_questions"],
            "additional_details": {"file_here": SAMPLES},
        },
    }


def _evaluation_result(
    kind: str, headline: dict[str, Any], source: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    value = headline[kind]
    uncertainty: dict[str, Any] = {"standard_error": {"value": value["stderr"], "method": "analytic"}}
    if "ci_low" in value:
        uncertainty["confidence_interval"] = {
            "lower": value["ci_low"],
            "upper": value["ci_high"],
            "confidence_level": 0.95,
            "method": "Wilson",
        }
    return {
        "evaluation_result_id": f"{evaluation_id(facts)}/{kind}",
        "evaluation_name": f"{source['dataset_name']} {kind}",
        "source_data": source,
        "metric_config": {
            "metric_id": "accuracy",
            "metric_name": f"{kind} accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {"score": value["accuracy"], "uncertainty": uncertainty},
        "generation_config": {
            "additional_details": {
                "prompt_style": str(facts["fingerprint_parts"].get("prompt_style")),
                "template_digest": str(facts["fingerprint_parts"].get("template_digest")),
                "num_fewshot": str(facts["fingerprint_parts"].get("num_fewshot")),
                "output_type": str(facts["fingerprint_parts"].get("output_type")),
            }
        },
    }


def _datastore_path(facts: dict[str, Any]) -> str:
    """Where the schema's datastore keeps ``samples.jsonl``: a path of its pattern, the same for the same"
    " run."""
    identity = hashlib.sha256(evaluation_id(facts).encode()).digest()[:16]
    developer, _, model = (facts["model"] or "unknown").rpartition("/")
    parts = (facts["exam"], developer or "unknown", model)
    folders = "/".join(make_slug(str(part)) for part in parts)
    return f"data/{folders}/{uuid.UUID(bytes=identity, version=4)}_{SAMPLES}"


def evaluation_id(facts: dict[str, Any]) -> str:
    return f"{facts['exam']}/{facts['model']}/{facts['fingerprint']}"


def _instance_lines(run: Run, facts: dict[str, Any]) -> bytes:
    """``samples.jsonl`` (``schemas/instance_level_eval.schema.json``). Questions are named, not quoted."""
    lines = []
    for row in run.frame.iter_rows(named=True):
        sample = {
            "schema_version": SCHEMA_VERSION,
            "evaluation_id": evaluation_id(facts),
            "model_id": facts["model"] or "unknown",
            "evaluation_name": run.exam_title,
            "sample_id": row["question_id"],
            "sample_hash": row["prompt_digest"],
            "interaction_type": "single_turn",
            "input": {"raw": f"(not published: {row['question_id']})", "reference": [row["answer"]]},
            "output": {"raw": [row["prediction"] or ""]},
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": row["prediction"] or "",
                    "extraction_method": row["read_by"] or "none",
                    "is_terminal": True,
                }
            ],
            "evaluation": {"score": float(row["correct"]), "is_correct": bool(row["correct"])},
            "token_usage": {
                "input_tokens": row["prompt_tokens"],
                "output_tokens": row["output_tokens"],
                "total_tokens": row["prompt_tokens"] + row["output_tokens"],
            },
            "metadata": {"subject": row["subject"]},
        }
        lines.append(json.dumps(sample, ensure_ascii=False))
    return ("\n".join(lines) + "\n").encode()


def read_bundle(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """``run.json`` and the answers of a bundle. RunError if a file is missing, or is not what the manifest
    says."""
    if not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: has no {MANIFEST}; give the directory of a bundle")
    digests = read_json(folder / MANIFEST, RunError).get("sha256")
    if not isinstance(digests, dict) or not {ANSWERS, RUN} <= set(digests):
        raise RunError(f"{folder / MANIFEST}: lists no {ANSWERS} and {RUN}; it is not a bundle's")
    for name, digest in digests.items():
        path = folder / Path(str(name)).name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise RunError(f"{path}: is missing or not the file that {MANIFEST} names; get the bundle again")
    schema = pl.Schema({name: kind for name, kind in PREDICTION_SCHEMA.items() if name not in _TEXT_COLUMNS})
    frame = read_parquet(
        folder / ANSWERS, RunError, schema=schema, optional=("num_options", "option_logprobs")
    )
    return read_json(folder / RUN, RunError), fill_prediction_columns(frame)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n").encode("utf-8", "replace")
