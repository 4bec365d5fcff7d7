"""bench.many_adapters: what it counts, and that its fake engine is the base but for some questions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from bench import all as bench_all
from bench import many_adapters
from bench import table as bench_table
from kmmlu_fast.core.schema import Adapter, Candidates, Request

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 16,
    "vocab_size": 100,
    "num_hidden_layers": 2,
    "max_position_embeddings": 8192,
}


@pytest.mark.parametrize(("name", "fewest", "most"), [("a-002", 340, 380), ("a-001", 80, 160)])
def test_an_adapter_answers_as_the_base_but_for_its_share(name: str, fewest: int, most: int) -> None:
    engine = many_adapters.SimilarEngine()
    adapter = Adapter(name=name, path=Path("one"), rank=1, digest="d", base_model=None, adapter_id=1)

    def answers() -> list[tuple[float, ...]]:
        requests = [
            Request(question_id=str(i), stage="letters", token_ids=(i,), want=Candidates((1, 2, 3, 4)))
            for i in range(400)
        ]
        return [response.logprobs for response in engine.generate(requests)]

    base = answers()
    engine.swap(adapter)
    moved = answers()
    same = sum(max(map(abs, map(float.__sub__, a, b))) <= 0.01 for a, b in zip(base, moved, strict=True))
    assert fewest <= same <= most and all(a != b for a, b in zip(base, moved, strict=True))
    engine.swap(None)
    assert answers() == base


def test_swaps_are_read_from_the_notes() -> None:
    with many_adapters.watch_swaps() as swaps:
        logger = logging.getLogger("kmmlu_fast")
        logger.info("a: written into the running engine in 0.3 s")
        logger.info("a: applied, largest log-probability shift 0.1 nats")
    logging.getLogger("kmmlu_fast").info("b: written into the running engine in 0.4 s")
    assert swaps.seconds == [0.3] and swaps.resident[0] > 0


def test_growth_is_one_in_proportion_and_the_ratio_to_its_square() -> None:
    assert many_adapters.growth_of(2.0, 8.0, 4.0) == 1.0
    assert many_adapters.growth_of(2.0, 32.0, 4.0) == 4.0
    assert many_adapters.growth_of(0.0, 1.0, 4.0) is None


def test_it_measures_every_part_with_the_fake_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    flags: list[str] = ["--dataset", "sample", "--model", str(tmp_path), "--adapters", "10"]
    assert many_adapters.main([*flags, "--questions", "45"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["adapters"], found["questions"]) == (10, 45)
    assert [row["what"] for row in found["rows"]] == ["summary and verdicts", "shown again", "until decided"]
    assert all(row["10 adapters, CPU s"] > 0 for row in found["rows"])
    assert set(found["resident_mib"]) == {"after 5", "after 10"}
    assert "10 adapters, 45 questions, fake engine" in bench_table.render({"many-adapters-fake": found})
    rows = bench_all.rows_of("many_adapters", found, bench_all.ROUND["many_adapters"][1], None)
    assert all(row["measured"] is not None for row in rows)


def test_too_few_adapters_to_grow_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert many_adapters.main(["--adapters", "3"]) == 2
    assert "growth needs at least 10" in capsys.readouterr().err
