"""A bundle of a real run is accepted with its own model, and rejected with another."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_tiny_adapter
from tiny_gguf import make_gguf_ready_model

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.shipping.bundle import make_bundle
from kmmlu_fast.shipping.config import VerifyConfig
from kmmlu_fast.shipping.verify import verify_bundle

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf_ready_model(tmp_path_factory.mktemp("verify") / "base", "gemma3")


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return make_tiny_adapter(base, base.parent / "lora", scale=0.5)


@pytest.fixture(scope="module")
def bundles(base: Path, lora: Path) -> dict[str, Path]:
    config = build_config(
        EvalConfig,
        model=str(base),
        adapter=[str(lora)],
        engine="transformers",
        dataset="sample",
        dtype="float32",
        output_dir=base.parent / "runs",
    )
    folders = {}
    for run in run_evaluation(config):
        folders[run.state] = base.parent / f"bundle-{run.state}"
        folders[run.state].mkdir()
        for name, data in make_bundle(run).items():
            (folders[run.state] / name).write_bytes(data)
    return folders


def verify(bundle: Path, **more: object) -> VerifyConfig:
    return build_config(
        VerifyConfig, bundle=[str(bundle)], engine="transformers", dataset="sample", sample=60, **more
    )


def test_its_own_model_is_accepted(bundles: dict[str, Path], base: Path, lora: Path) -> None:
    found = verify_bundle(verify(bundles["base"], model=str(base)))
    assert found.accepted and found.questions == 60, found.reasons
    found = verify_bundle(verify(bundles["lora"], model=str(base), adapter=str(lora)))
    assert found.accepted, found.reasons


def test_another_model_is_rejected(bundles: dict[str, Path], base: Path) -> None:
    other = make_gguf_ready_model(base.parent / "other", "gemma3", seed=9)
    assert not verify_bundle(verify(bundles["base"], model=str(other))).accepted


def test_numbers_alone_need_no_model(bundles: dict[str, Path]) -> None:
    found = verify_bundle(VerifyConfig(bundle=[str(bundles["lora"])]))
    assert found.accepted and found.questions == 0


def test_adapter_is_asked_for(bundles: dict[str, Path], base: Path) -> None:
    with pytest.raises(ConfigError, match="give --adapter"):
        verify_bundle(verify(bundles["lora"], model=str(base)))


def test_a_sample_is_asked_in_the_form_that_was_published() -> None:
    from kmmlu_fast.shipping.verify import _eval_config

    parts = {"prompt_style": "lm-eval", "decoding": {"letter_form": "either"}}
    config = build_config(VerifyConfig, bundle=["runs/x"], model="m")
    assert _eval_config(config, {"fingerprint_parts": parts}).letter_form == "either"
    assert _eval_config(config, {"fingerprint_parts": {"prompt_style": "qa"}}).letter_form is None
