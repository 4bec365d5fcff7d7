"""bench: what it counts and how it reports. No timing is asserted."""

import json

import pytest
from tiny import make_tiny_tokenizer

from bench import common, flops, overhead, peers, throughput
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Question

# hidden 8, 2 heads of 4, 1 key-value head, MLP 16, vocabulary 100, one layer with a window of 3 and one
# without
CONFIG = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 16,
    "vocab_size": 100,
    "num_hidden_layers": 2,
    "sliding_window": 3,
    "layer_types": ["sliding_attention", "full_attention"],
}


def test_flops_of_linear_layers_and_head_by_hand():
    shape = flops.shape_of(CONFIG)
    # qkv 8 x (2+2*1)*4=16, out 8 x 8, gate and up 8 x 32, down 16 x 8: 128 + 64 + 256 + 128 = 576
    # multiply-adds a layer
    assert shape.linear_flops == 2 * 2 * 576
    assert shape.head_flops == 2 * 8 * 100


def test_flops_of_attention_by_hand():
    shape = flops.shape_of(CONFIG)
    # 5 positions: full 1+2+3+4+5 = 15 pairs, window of three 1+2+3+3+3 = 12
    assert shape.attention_flops(5) == 4 * 2 * 4 * (15 + 12)
    assert shape.attention_flops(2) == 4 * 2 * 4 * (3 + 3)


def test_cached_tokens_cost_nothing_but_are_attended_to():
    shape = flops.shape_of(CONFIG)
    # positions 3 and 4 only: full 4 + 5, window 3 + 3
    assert shape.attention_flops(5, cached=3) == 4 * 2 * 4 * (9 + 6)
    counted = flops.pass_flops(shape, [(5, 3), (2, 0)])
    assert counted["linear"] == (2 + 2) * shape.linear_flops
    assert counted["head"] == 2 * shape.head_flops
    assert counted["total"] == counted["linear"] + counted["attention"] + counted["head"]


def test_a_real_shape_has_its_published_number_of_weights():
    from bench.shape_model import SHAPES

    shape = flops.shape_of(SHAPES["ax4-light"])
    weights = shape.linear_flops / 2 + 2 * shape.hidden * shape.vocabulary  # embeddings and head are not tied
    assert weights == pytest.approx(7.26e9, rel=0.005)


def test_sliding_window_that_the_config_switches_off_is_no_window():
    config = {**CONFIG, "use_sliding_window": False, "layer_types": None}
    assert flops.shape_of(config).windows == (None, None)


def test_mixture_of_experts_is_refused_not_miscounted():
    with pytest.raises(ConfigError, match="mixture of experts"):
        flops.shape_of({**CONFIG, "num_experts": 8})


def test_spread_is_median_and_range():
    assert common.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "spread": 1.0, "runs": 3}
    assert common.spread([1.0, 2.0])["median"] == 1.5


def test_timed_leaves_out_the_warm_up():
    calls = []
    seconds, last = common.timed(lambda: calls.append(len(calls)) or len(calls), repeats=3, warm_up=2)
    assert (len(calls), len(seconds), last) == (5, 3, 5)


def test_table_aligns_and_shows_absent_as_a_dash():
    lines = common.table("Title", [{"name": "a", "n": 1234}, {"name": "bb", "n": None}]).splitlines()
    assert lines == ["Title", "name      n", "----  -----", "a     1,234", "bb        -"]


def test_json_line_is_last_and_records_add_up(tmp_path, capsys):
    config = common.BenchConfig(record=True, results_dir=tmp_path)
    for sec in (1.0, 2.0):
        common.finish("example", config, ["--record", "--repeats", "3"], {"sec": sec}, ["a table"])
    entry = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert entry["command"] == "python -m bench.example --repeats 3"
    assert {"bench", "time_utc", "device", "versions", "sec"} <= set(entry)
    (path,) = tmp_path.glob("*.json")
    assert path.name.endswith(f"{entry['time_utc'][:10]}.json")
    assert [item["sec"] for item in json.loads(path.read_text())] == [1.0, 2.0]


def test_command_hides_this_machines_paths():
    words = ["--model", "/somewhere/private/model", "--limit", "5"]
    assert common.command("peers", words) == "python -m bench.peers --model model --limit 5"


def test_agreement_tells_near_ties_from_disagreement():
    ours = {"a": [-1.0, -2.0, -3.0, -4.0], "b": [-1.00, -1.01, -3.0, -4.0], "c": [-1.0, -2.0, -3.0, -4.0]}
    theirs = {"a": [-1.1, -2.0, -3.0, -4.0], "b": [-1.01, -1.00, -3.0, -4.0], "c": [-2.0, -1.0, -3.0, -4.0]}
    found = peers.agreement(ours, theirs)
    assert (found["same_prediction"], found["near_ties"], found["different"]) == (1, 1, 1)
    assert found["max_abs_logprob_difference"] == 1.0


def test_chunks_hold_whole_subjects_and_every_question_once():
    questions = [
        Question(
            question_id=f"{s}/test/{i}",
            subject=s,
            supercategory="Other",
            split="test",
            row=i,
            question="?",
            options=("1", "2", "3", "4"),
            answer="A",
        )
        for s in "VWXYZ"
        for i in range(2)
    ]
    parts = peers.split(questions, 3)
    assert [q for part in parts for q in part] == questions
    subjects = [{q.subject for q in part} for part in parts]
    assert len(parts) == 3 and not any(a & b for a in subjects for b in subjects if a is not b)


def test_enlarged_data_has_the_size_asked_for_and_distinct_rows(tmp_path):
    from kmmlu_fast.data.dataset import load_frame

    frame = load_frame(str(overhead.enlarge("sample", 900, tmp_path, distinct=True)), "test")
    assert len(frame) == pytest.approx(900, abs=45)
    assert frame["question"].n_unique() == len(frame)


def test_overhead_measures_the_whole_pass_with_its_stages(tmp_path, capsys):
    make_tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps(CONFIG | {"model_type": "llama", "max_position_embeddings": 8192})
    )
    flags = [
        "--dataset",
        "sample",
        "--model",
        str(tmp_path),
        "--questions",
        "90",
        "--factors",
        "1",
        "--repeats",
        "1",
    ]
    assert overhead.main(flags) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["questions"]["median"] == 90
    stages = [
        row[f"{stage}_sec"]["median"] for stage in ("read_render", "ask_score_store", "join_metrics", "rest")
    ]
    assert all(sec > 0 for sec in stages) and sum(stages) == pytest.approx(row["own_sec"]["median"], abs=0.01)


def test_sweep_refuses_what_is_no_setting():
    with pytest.raises(ConfigError, match="4096"):
        throughput.sweep(throughput.ThroughputConfig(sweep=["fast"]))


def test_soundness_simulates_what_it_says():
    import numpy as np

    from bench.simulated_runs import list_claims, list_intervals, make_strata
    from bench.tuned_worlds import WORLDS, count_tuned_claims, simulate_pair

    assert len(make_strata(0)) == 35_030 and np.bincount(make_strata(90)).tolist() == [2] * 45
    strata = make_strata(9_000)
    pair = simulate_pair(WORLDS["prior"], strata, np.random.default_rng(0), stored=True)
    split = pair.letters.splits[0]
    assert pair.significant and split.letter_prior.value == pytest.approx(pair.letters.difference, abs=0.02)
    assert {"micro", "macro", "remaining (logprobs)", "log_score"} <= set(list_intervals(pair))
    null = simulate_pair(WORLDS["null"], strata, np.random.default_rng(1), stored=False)
    assert null.letters.method == "letters" and set(list_claims(null)) >= {
        "micro",
        "opposite",
        "subject changes",
    }
    made = count_tuned_claims("margin", 450, np.random.default_rng(0), 20, {})["type_one"]["equal"]
    assert len(made) == 20 and sum(made) <= 3


def test_soundness_covers_every_world_and_judges_each():
    from bench import soundness
    from bench.foreign_worlds import FOREIGN
    from bench.form_worlds import FORM_WORLDS
    from bench.sample_worlds import SAMPLE_WORLDS
    from bench.tuned_worlds import SINGLE_CLAIMS, WORLDS

    cells = soundness.plan_cells(soundness.SoundnessConfig())
    asked, more = {cell.world for cell in cells}, {"seeds", "copies", "commands"}
    assert asked == {*WORLDS, *SINGLE_CLAIMS, *FOREIGN, *FORM_WORLDS, *SAMPLE_WORLDS, *more}
    assert all(number == 400 for cell, number in cells.items() if cell.world == "commands")
    parts = soundness.plan_parts(cells, soundness.SoundnessConfig())
    assert sum(part.number for part in parts) == sum(cells.values())
    one, fresh = parts[-1], soundness.plan_parts(cells, soundness.SoundnessConfig(), draw=1)[-1]
    assert one.cell == fresh.cell and one != fresh  # a cell drawn afresh gets other pairs

    def claims(kind, made, pairs=100):
        return {kind: {"said": [True] * made + [False] * (pairs - made)}}

    assert soundness.is_within(claims("foreign", 9)) and not soundness.is_within(claims("foreign", 10))
    assert soundness.is_within(claims("power", 100)) and soundness.is_within(claims("conditional", 60))
    assert not soundness.is_within(claims("coverage", 88)) and soundness.is_within(claims("coverage", 90))
    assert soundness.is_within(claims("foreign_coverage", 1_000, 1_000))
    assert not soundness.is_within(claims("coverage", 1_000, 1_000))
    good, bad = (soundness.Cell(family="foreign", world=name, n=450) for name in ("cooled", "repeated"))
    worlds = soundness.judge_worlds({good: claims("foreign", 3), bad: claims("foreign", 30)})
    assert worlds["cooled"]["ok"] and not worlds["repeated"]["ok"]
    assert worlds["repeated"]["claim"]["share"] == 0.3 and worlds["repeated"]["claim"]["bound"] < 0.1


def test_soundness_in_seeds_copies_commands_and_forms():
    import numpy as np

    from bench import foreign_worlds, form_worlds

    random = np.random.default_rng(0)
    seeds = foreign_worlds.count_seed_claims(450, random, 4)
    assert set(seeds["foreign"]) == {"recipe, seeds that vary", "recipe, seeds alike"}
    assert foreign_worlds.count_copy_claims(450, random, 1) == {"foreign": {"keys in doubt, copies": [False]}}
    (made,) = foreign_worlds.count_command_claims(225, random, 2)["foreign"].values()
    assert len(made) == 2
    forms = form_worlds.count_form_claims("form", 450, random, 2)
    assert set(forms) == {"forms", "forms_power"} and len(forms["forms_power"]["form, form world"]) == 2


def test_soundness_covers_both_sources_of_variance():
    from bench import soundness

    found = soundness.count_sample_coverage("even", 45, 1, 40)["coverage"]
    assert set(found) == {"avg@8, other questions, even world", "avg@8, the same questions, even world"}
    assert all(len(held) == 40 and sum(held) > 0.7 * 40 for held in found.values())
