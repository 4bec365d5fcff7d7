"""What kind of question a run gets wrong: by negation, figure, formula, number and length; and the errors it
was surest of.

In: predictions, and the dataset's frame for the texts. Out: small frames. Knows nothing of models or of how
results are shown.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.accuracy import PARSED, by_group_lazy, with_correct
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS

# Wording that marks a question, as regular expressions. NEGATION is looked for where a question asks: in its
# last characters, without
# notes in brackets ("(단, ... 제외)" negates nothing). 37 % of KMMLU's test questions have it.
NEGATION = r"않은|않는|아닌|틀린|잘못|옳지|거리가 (?:가장 )?먼|관계가 (?:가장 )?먼|없는|해당되?지|부적[당합절]|적절하지"  # noqa: E501
_ASKING_CHARS = 30
FIGURE = r"그림|도표|사진|아래 표|다음 표|<표|\[표|\(표|그래프|도면|회로도|보기"
FORMULA = r"[=√∫∑×÷±≤≥≠∞πΩθλμ]|\\[a-zA-Z]+|\$[^$]+\$|\^"
NUMBER = r"\d"


def with_features(questions: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Questions (``question``, A, B, ... null where it has fewer options, ``human_accuracy``) with what may
    make one hard: chars (question and options), negation, number (a digit in the options), formula, figure
    (refers to a figure, table or list), human_band.
    """
    names = questions.lazy().collect_schema().names()
    options = pl.concat_str(
        [letter for letter in OPTION_LETTERS if letter in names], separator=" ", ignore_nulls=True
    )
    text = pl.concat_str("question", options, separator=" ")
    asking = pl.col("question").str.replace_all(r"\([^()]*\)", "").str.strip_chars().str.slice(-_ASKING_CHARS)
    human = pl.col("human_accuracy")
    bands = (
        pl.when(human < 0.4)
        .then(pl.lit("below 0.4"))
        .when(human < 0.6)
        .then(pl.lit("0.4-0.6"))
        .when(human < 0.8)
        .then(pl.lit("0.6-0.8"))
    )
    return questions.lazy().with_columns(
        text.str.len_chars().cast(pl.Int64).alias("chars"),
        asking.str.contains(NEGATION).alias("negation"),
        options.str.contains(NUMBER).alias("number"),
        text.str.contains(FORMULA).alias("formula"),
        pl.col("question").str.contains(FIGURE).alias("figure"),
        bands.when(human.is_not_null())
        .then(pl.lit("0.8 and above"))
        .otherwise(pl.lit("not given"))
        .alias("human_band"),
    )


def error_profile(
    predictions: pl.DataFrame | pl.LazyFrame, questions: pl.DataFrame | pl.LazyFrame
) -> pl.DataFrame:
    """Accuracy by question feature: rows of (feature, value, total, correct, errors, accuracy, stderr,
    ci_low, ci_high).

    ``chars`` is split at its quartiles over the questions answered. Questions missing from either side are
    left out.
    """
    marked = with_features(questions).select(
        "question_id", "chars", "negation", "number", "formula", "figure", "human_band"
    )
    both = (
        with_correct(predictions)
        .select("question_id", "correct", "prediction")
        .join(marked, on="question_id")
    )
    band = pl.col("chars").rank("ordinal") * 4 // (pl.len() + 1)
    quarter = band.cast(pl.String).replace_strict(
        {"0": "shortest quarter", "1": "second", "2": "third", "3": "longest quarter"}, default=None
    )
    features = both.with_columns(quarter.alias("length")).drop("chars").collect()
    parts = []
    for name in ("length", "negation", "number", "formula", "figure", "human_band"):
        value = (
            pl.col(name)
            if features.schema[name] == pl.String
            else pl.when(pl.col(name)).then(pl.lit("yes")).otherwise(pl.lit("no"))
        )
        part = by_group_lazy(
            features.with_columns(value.alias("value"), pl.lit(name).alias("feature")), ["feature", "value"]
        )
        parts.append(part.drop("unparsed"))
    return pl.concat(pl.collect_all(parts))


def confident_errors(predictions: pl.DataFrame | pl.LazyFrame, limit: int = 20) -> pl.DataFrame:
    """The most confident wrong answers: largest ``margin`` (nats) first, then confidence;
    unparsed ones have none.
    """
    columns = ["question_id", "subject", "answer", "prediction", "margin", "confidence", *LOGPROB_COLUMNS]
    wrong = with_correct(predictions).filter(~pl.col("correct") & PARSED)
    order = ["margin", "confidence", "question_id"]
    return (
        wrong.sort(order, descending=[True, True, False], nulls_last=True)
        .select(columns)
        .head(limit)
        .collect()
    )
