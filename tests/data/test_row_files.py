"""Sources: files, patterns, folders of shards with splits, and hub sources by name."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest
from exam_files import write_jsonl

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.data.hub_rows import HubSource, is_hub_id, parse_hub_source
from kmmlu_fast.data.mixture import MixtureSource, parse_mixture_source, read_mixture
from kmmlu_fast.data.row_files import iter_located_rows, source_files


def row(text: str) -> dict[str, str]:
    return {"prompt": text, "completion": f"{text}!"}


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        pl.DataFrame([row(f"{number}가"), row(f"{number}나")]).write_parquet(
            tmp_path / f"train-0000{number}-of-00003.parquet"
        )
    (tmp_path / "README.md").write_text("# rows")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    write_jsonl(tmp_path / ".cache" / "old.jsonl", [row("옛")])
    found = list(iter_located_rows(str(tmp_path)))
    assert [r["prompt"] for _, _, r in found if isinstance(r, dict)] == [
        "0가",
        "0나",
        "1가",
        "1나",
        "2가",
        "2나",
    ]
    assert [(Path(file).name[:11], number) for file, number, _ in found][:3] == [
        ("train-00000", 1),
        ("train-00000", 2),
        ("train-00001", 1),
    ]


def test_of_several_splits_only_train_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "test", "validation"):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", [row(split)])
    with caplog.at_level(logging.INFO, logger="kmmlu_fast"):
        assert [path.name for path in source_files(str(tmp_path))] == ["train.jsonl"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "1 of 3 files are read (train); not read: data/test.jsonl, data/validation.jsonl" in said
    (tmp_path / "data" / "train.jsonl").unlink()
    with pytest.raises(DataError, match="has files of test, validation, none of train"):
        source_files(str(tmp_path))


def test_what_datasets_saves_to_disk_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([row("가"), row("나")])
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "saved"))
    found = list(iter_located_rows(str(tmp_path / "saved")))
    assert [r for _, _, r in found] == [row("가"), row("나")]


def test_a_pattern_stands_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_jsonl(tmp_path / f"part-{number}.jsonl", [row(str(number))])
    assert len(source_files(f"{tmp_path}/part-[12].jsonl")) == 2
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in source_files("*.jsonl")] == [f"part-{i}.jsonl" for i in range(3)]
    with pytest.raises(DataError, match="no file matches"):
        source_files("*.csv")
    # a name that looks like a pattern is a name
    write_jsonl(tmp_path / "part-[12].jsonl", [row("x")])
    assert [path.name for path in source_files("part-[12].jsonl")] == ["part-[12].jsonl"]


def test_a_folder_is_a_source_of_a_mixture_and_its_rows_are_drawn_file_by_file(tmp_path: Path) -> None:
    for number in range(2):
        write_jsonl(tmp_path / "shards" / f"{number}.jsonl", [row(f"{number}-{i}") for i in range(200)])
    part = parse_mixture_source(f"{tmp_path / 'shards'}:0.5")
    assert part.weight == 0.5
    rows, (share,) = read_mixture([part], 3)
    taken = [{r.number for r in rows if r.source.endswith(f"{n}.jsonl")} for n in range(2)]
    assert share.rows == 400 and 150 < share.taken < 250 and taken[0] != taken[1]
    with pytest.raises(ConfigError, match="is a folder without data files"):
        (tmp_path / "empty").mkdir()
        parse_mixture_source(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("text", "source", "weight"),
    [
        ("owner/name", HubSource("owner/name"), 1),
        ("owner/name:0.5", HubSource("owner/name"), 0.5),
        ("owner/name:ko", HubSource("owner/name", "ko"), 1),
        ("owner/name:ko:validation:2", HubSource("owner/name", "ko", "validation"), 2),
        ("owner/name@v1.0", HubSource("owner/name", revision="v1.0"), 1),
        (
            "owner/na.me:20231101.ko:train@a1b2c3:0.1",
            HubSource("owner/na.me", "20231101.ko", "train", "a1b2c3"),
            0.1,
        ),
    ],
)
def test_a_hub_source_names_config_split_revision_and_weight(
    text: str, source: HubSource, weight: float
) -> None:
    part = parse_mixture_source(text)
    assert parse_hub_source(part.source) == source and part.weight == weight


def test_a_path_is_no_hub_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "own" / "rows", [row("x")])
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("own/rows") and parse_hub_source("own/rows") is None
    for text in ("own/rows.jsonl", "a/b.csv.gz", "./a/b", "a/b/c", "parts/*", "own/"):
        assert parse_hub_source(text) is None, text
    with pytest.raises(ConfigError, match=r"no such file or folder; give a \.jsonl"):
        parse_mixture_source("own/absent.jsonl")
    assert parse_mixture_source("owner/name:ko") == MixtureSource("owner/name:ko")
