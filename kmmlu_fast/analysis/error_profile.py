"""What goes wrong in a run: which sort of question (negation, figure, formula, number, length), which sort of
error (unread, sure of it, the key a close second), and the errors it was surest of.

In: predictions, and the dataset's frame for the texts. Out: small frames, shares 0-1. Knows nothing of models
or of how results are shown. Descriptions, not tests: what is compared here was not chosen beforehand.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.accuracy import PARSED, accuracy_by_group_lazy, letters_of_frame, with_correct_column
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS, logprobs_list

# Wording that marks a question, as regular expressions. NEGATION is looked for where a question asks: in its
# last characters, without
# notes in brackets ("(단, ... 제외)" negates nothing). 37 % of KMMLU's test questions have it.
NEGATION = r"않은|않는|아닌|틀린|잘못|옳지|거리가 (?:가장 )?먼|관계가 (?:가장 )?먼|없는|해당되?지|부적[당합절]|적절하지"  # noqa: E501
_ASKING_CHARS = 30
FIGURE = r"그림|도표|사진|아래 표|다음 표|<표|\[표|\(표|그래프|도면|회로도|보기"
FORMULA = r"[=√∫∑×÷±≤≥≠∞πΩθλμ]|\\[a-zA-Z]+|\$[^$]+\$|\^"
NUMBER = r"\d"
CONFIDENT = 0.8  # confidence (0-1) from which a wrong answer is a confident one
FEATURES = ("length", "negation", "number", "formula", "figure", "human_band")


def with_question_features(questions: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
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
    human = pl.when(pl.col("human_accuracy") > 0).then("human_accuracy")  # 0.0: no results were recorded
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
    marked = with_question_features(questions).select(
        "question_id", "chars", "negation", "number", "formula", "figure", "human_band"
    )
    both = (
        with_correct_column(predictions)
        .select("question_id", "correct", "prediction")
        .join(marked, on="question_id")
    )
    band = (pl.col("chars").rank("min").cast(pl.Int64) - 1) * 4 // pl.len()  # equal lengths stay together
    quarter = band.cast(pl.String).replace_strict(
        {"0": "shortest quarter", "1": "second", "2": "third", "3": "longest quarter"}, default=None
    )
    features = both.with_columns(quarter.alias("length")).drop("chars").collect()
    parts = []
    for name in FEATURES:
        value = (
            pl.col(name)
            if features.schema[name] == pl.String
            else pl.when(pl.col(name)).then(pl.lit("yes")).otherwise(pl.lit("no"))
        )
        part = accuracy_by_group_lazy(
            features.with_columns(value.alias("value"), pl.lit(name).alias("feature")), ["feature", "value"]
        )
        parts.append(part.drop("unparsed"))
    return pl.concat(pl.collect_all(parts))


def error_kinds(predictions: pl.DataFrame | pl.LazyFrame, by: tuple[str, ...] = ()) -> pl.DataFrame:
    """How a run goes wrong, a row a group (``("subject",)``; one row in all without), sorted by it.

    ``predictions``: PREDICTION_SCHEMA. Columns: ``total`` questions, ``errors``, of which ``unparsed``,
    ``forced`` (letter forced after the model's own reasoning), ``confident`` (confidence of CONFIDENT or
    more; null where no answer states one), ``close`` (the key first or second by log-probability; null where
    there are none); ``letter``, the wrong letter given most often (the earlier on a tie), and
    ``letter_errors``, how often.
    """
    frame = with_correct_column(predictions)
    wrong = ~pl.col("correct") & PARSED
    logprobs = [
        pl.col("_logprobs").list.get(i, null_on_oob=True) for i in range(len(letters_of_frame(frame)))
    ]
    key = pl.coalesce(
        [
            pl.when(pl.col("answer") == letter).then(value)
            for letter, value in zip(OPTION_LETTERS, logprobs, strict=False)
        ]
    )
    above = pl.sum_horizontal([(value > key).cast(pl.Int64).fill_null(0) for value in logprobs])
    marked = frame.with_columns(logprobs_list().alias("_logprobs")).with_columns(
        (wrong & (above <= 1) & key.is_not_null()).alias("_close"), key.is_not_null().alias("_known")
    )
    given = pl.col("prediction").filter(wrong)

    def counted(expression: pl.Expr, name: str) -> pl.Expr:
        return expression.sum().cast(pl.Int64).alias(name)

    sure = pl.col("confidence")
    columns = [
        pl.len().cast(pl.Int64).alias("total"),
        counted(~pl.col("correct"), "errors"),
        counted(~PARSED, "unparsed"),
        counted(wrong & pl.col("forced").fill_null(False), "forced"),
        pl.when(sure.count() > 0)
        .then(counted(wrong & (sure >= CONFIDENT).fill_null(False), "confident"))
        .alias("confident"),
        pl.when(pl.col("_known").any()).then(counted(pl.col("_close"), "close")).alias("close"),
        given.mode().sort().first().alias("letter"),
        given.unique_counts().max().fill_null(0).cast(pl.Int64).alias("letter_errors"),
    ]
    keys = list(by)
    rows = marked.collect()
    return rows.group_by(keys).agg(columns).sort(keys) if keys else rows.select(columns)


def confident_errors(predictions: pl.DataFrame | pl.LazyFrame, limit: int = 20) -> pl.DataFrame:
    """The most confident wrong answers: largest ``margin`` (nats) first, then confidence. Answers that state
    neither (unparsed ones, imported letters) are none.
    """
    columns = ["question_id", "subject", "answer", "prediction", "margin", "confidence", *LOGPROB_COLUMNS]
    stated = pl.col("margin").is_not_null() | pl.col("confidence").is_not_null()
    wrong = with_correct_column(predictions).filter(~pl.col("correct") & PARSED & stated)
    order = ["margin", "confidence", "question_id"]
    return (
        wrong.sort(order, descending=[True, True, False], nulls_last=True)
        .select(columns)
        .head(limit)
        .collect()
    )
