"""The gate's result as lines, JSON and JUnit XML."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.shipping.artefact import Artefact, open_artefact
from kmmlu_fast.shipping.diagnosis import Measurements, diagnose
from kmmlu_fast.shipping.gate import CheckedArtefact, GateReport
from kmmlu_fast.shipping.gate_report import gate_json, gate_junit, gate_lines
from kmmlu_fast.shipping.text_comparison import TextComparison


def report(*texts: TextComparison) -> GateReport:
    checked = []
    for number, text in enumerate(texts):
        measured = Measurements(quantisation=None, texts=text)
        artefact = Artefact(name=f"a<{number}>", kind="directory", path=Path("x"), model=None)
        found = diagnose(measured, 0.5)
        checked.append(CheckedArtefact(artefact=artefact, measured=measured, diagnosis=found))
    model, adapter = SimpleNamespace(name="base", digest="d"), SimpleNamespace(name="lora", digest="e")
    source: Any = SimpleNamespace(model=model, adapter=adapter)
    return GateReport(source=source, style="lm-eval", checked=tuple(checked), trained=None)


def test_a_fault_fails_its_case() -> None:
    found = report(TextComparison(texts=9, different=0, bos="lost"))
    assert not found.is_safe
    suite = ElementTree.fromstring(gate_junit(found))
    assert suite.get("failures") == "1" and suite[0].get("name") == "a<0>"
    failure = suite[0].find("failure")
    assert failure is not None and "begin-of-text token is lost" in str(failure.get("message"))
    assert "0 of 1 safe to ship" in gate_lines(found)[-1]
    value = json.loads(json.dumps(gate_json(found), allow_nan=False))
    assert value["artefacts"][0]["causes"] == ["bos"] and value["safe"] is False


def test_undecided_is_not_safe() -> None:
    found = report(TextComparison(texts=9, different=0))
    assert not found.is_safe and ElementTree.fromstring(gate_junit(found)).get("failures") == "1"


def test_a_file_that_is_no_gguf_is_told_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="is a file, and no GGUF file"):
        open_artefact(str(path), None)
