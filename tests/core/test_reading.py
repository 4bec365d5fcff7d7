"""Reading within bounds: no more memory than a file has bytes, no work that grows with the square of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmmlu_fast.core import reading
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.core.reading import expand_path, read_bytes, read_json, read_yaml

SMALL = """
import resource, sys
from pathlib import Path
from kmmlu_fast.core.reading import read_bytes
from kmmlu_fast.core.table_files import MAX_TABLE_BYTES
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
print(len(read_bytes(Path(sys.argv[1]), most=MAX_TABLE_BYTES)))
"""


def test_a_small_file_needs_little_memory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 611)
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(tmp_path / "x")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "611\n", done.stderr[-300:]


def test_files_without_a_size_are_read_whole_and_bounded() -> None:
    path = Path("/proc/self/status")
    assert read_bytes(path).startswith(b"Name:")
    with pytest.raises(KmmluError, match="is larger than"):
        read_bytes(path, most=10)


@pytest.mark.parametrize("size", [0, 9, 10, 11])
def test_the_bound_is_exact(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(b"x" * size)
    if size > 10:
        with pytest.raises(KmmluError, match="is larger than"):
            read_bytes(tmp_path / "x", most=10)
    else:
        assert len(read_bytes(tmp_path / "x", most=10)) == size


def test_a_large_object_with_a_late_duplicate_is_quick(tmp_path: Path) -> None:
    keys = ",".join(f'"k{number}": 1' for number in range(300_000))
    (tmp_path / "x.json").write_text(f'{{{keys}, "k299999": 2}}')
    start = time.process_time()
    with pytest.raises(KmmluError, match="'k299999' appears twice"):
        read_json(tmp_path / "x.json")
    assert time.process_time() - start < 30  # it was an hour's work


@pytest.mark.parametrize(
    "value", ["!!bool 5", '!!int ""', "!!timestamp foo", "!!float x", "!!binary 5", "!!set 5"]
)
def test_yaml_tags_that_their_values_do_not_fit_are_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.yaml").write_text(f"thinking: {value}\n")
    with pytest.raises(ConfigError, match="--config x") as caught:
        read_yaml(tmp_path / "x.yaml", "--config x")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        expand_path("run\udcff", "--output")
    assert expand_path("결과/[1]").name == "[1]"


def test_duplicates_are_found_in_order() -> None:
    assert reading.first_duplicate(["a", "b", "c", "b", "a"]) == "b"
    assert reading.first_duplicate([]) is None
