"""Several runs against one base: p corrected for their number, refusals by name, the best of several."""

import pytest
from made_runs import QUICK, loaded, predictions

from kmmlu_fast.analysis.base_comparisons import adjust_pair_p_values, compare_with_base
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import compare_headline


def test_every_run_is_compared_with_the_base_and_p_is_corrected_for_their_number() -> None:
    base, better, other = (loaded(f"run-{skill}", predictions(1, skill=skill)) for skill in (0.5, 0.9, 0.6))
    alone = compare_pair(base, better, QUICK)
    assert alone.p_holm is None and alone.p_value == alone.micro.p_value
    elsewhere = loaded("elsewhere", predictions(1, sizes={"Chemistry": 20}))
    pairs, refused = compare_with_base([base, better, other, elsewhere], QUICK)
    assert [pair.second for pair in pairs] == [better.name, other.name]
    assert [name for name, _ in refused] == ["elsewhere"]
    assert alone.micro.p_value is not None and pairs[0].p_holm is not None
    assert pairs[0].p_value == pairs[0].p_holm == pytest.approx(2 * alone.micro.p_value)


def test_headlines_are_corrected_as_whole_comparisons_are() -> None:
    base, *others = (loaded(f"run-{skill}", predictions(1, skill=skill)) for skill in (0.5, 0.9, 0.6, 0.7))
    whole = adjust_pair_p_values([compare_pair(base, other, QUICK) for other in others])
    headlines = adjust_pair_p_values([compare_headline(base, other, QUICK) for other in others])
    for pair, headline in zip(whole, headlines, strict=True):
        assert (headline.p_holm, headline.tried, headline.alpha) == (pair.p_holm, pair.tried, pair.alpha)
        assert (headline.best_of, headline.shrunk, headline.outcome) == (
            pair.best_of,
            pair.shrunk,
            pair.outcome,
        )
    assert [headline.best_of for headline in headlines] == [True, False, False]
