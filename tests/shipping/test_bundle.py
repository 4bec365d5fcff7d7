"""A bundle holds what the numbers follow from, no text of a question, and is a record of its schema."""

from __future__ import annotations

import io
import json
from pathlib import Path

import made_runs
import polars as pl
import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.shipping import bundle
from kmmlu_fast.shipping.verification import check_headline

SCHEMAS = Path(bundle.__file__).parent / "schemas"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    frame = made_runs.predictions(1, text="이 글은 문제의 글이다")
    made_runs.run_directory(tmp_path / "run", "lora", frame)
    return bundle.make_bundle(load_run_directory(tmp_path / "run"))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_no_text_of_a_question_and_no_path_of_the_machine(files: dict[str, bytes], tmp_path: Path) -> None:
    places = [str(place).encode() for place in (tmp_path, Path.home(), Path.cwd())]
    assert "texts" not in pl.read_parquet(io.BytesIO(files[bundle.ANSWERS])).columns
    for name, data in files.items():
        assert "문제의 글".encode() not in data, name
        assert not any(place in data for place in places), name


def test_reads_back_and_its_numbers_follow(files: dict[str, bytes], tmp_path: Path) -> None:
    facts, frame = bundle.read_bundle(write(tmp_path / "bundle", files))
    assert check_headline(facts["headline"], frame) == [] and facts["headline"]["num_questions"] == len(frame)


def test_changed_file_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle", files)
    (folder / bundle.RUN).write_bytes(files[bundle.RUN].replace(b'"micro"', b'"Micro"'))
    with pytest.raises(RunError, match=r"run\.json: is missing or not the file that manifest\.json names"):
        bundle.read_bundle(folder)
    with pytest.raises(RunError, match="has no manifest"):
        bundle.read_bundle(tmp_path)


def test_is_a_record_of_every_eval_ever(files: dict[str, bytes]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((SCHEMAS / "eval.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(files[bundle.RECORD]), schema)
    instances = json.loads((SCHEMAS / "instance_level_eval.schema.json").read_text("utf-8"))
    for line in files[bundle.SAMPLES].decode().splitlines()[:20]:
        jsonschema.validate(json.loads(line), instances)
    record = json.loads(files[bundle.RECORD])
    del record["model_info"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema)
