"""What goes wrong in a run: accuracy by question feature (negation, figure, formula, number, length), kinds
of error (unparsed, confident, the key a close second), and the most confident errors.

In: predictions, and the dataset's frame for the texts. Out: small frames, shares 0-1. Knows nothing of models
or of how results are shown. These are descriptions, not tests: the features were not chosen beforehand.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.accuracy import PARSED, accuracy_by_group_lazy, letters_of_frame, with_correct_column
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS

# Wording that marks a feature, as regular expressions. NEGATION is searched where a question asks: in its
# last characters, without notes in brackets ("(단, ... 제외)" negates nothing). 37 % of KMMLU's test has it.
NEGATION = r"않은|않는|아닌|틀린|잘못|옳지|거리가 (?:가장 )?먼|관계가 (?:가장 )?먼|없는|해당되?지|부적[당합절]|적절하지"  # noqa: E501
_ASKING_CHARS = 30
FIGURE = r"그림|도표|사진|아래 표|다음 표|<표|\[표|\(표|그래프|도면|회로도|보기"
FORMULA = r"[=√∫∑×÷±≤≥≠∞πΩθλμ]|\\[a-zA-Z]+|\$[^$]+\$|\^"
NUMBER = r"\d"
CONFIDENT = 0.8  # a wrong answer of at least this confidence (0-1) is a confident error
FEATURES = ("length", "negation", "number", "formula", "figure", "human_band")


def with_question_features(questions: pl.DataFrame | pl.LazyFrame) -> pl.LazyFrame:
    """Questions (``question``, A, B, ... null if it has fewer options, ``human_accuracy``) with the features
    that may make them hard: chars (question and options), negation, number (a digit in the options), formula,
    figure (refers to a figure, table or list), human_band.
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

    ``chars`` is split at its quartiles over the answered questions. Questions missing from either frame are
    left out.
    """
    answers = with_correct_column(predictions).select("question_id", "correct", "prediction")
    columns = ["question_id", "chars", "negation", "number", "formula", "figure", "human_band"]
    both = answers.join(with_question_features(questions).select(columns), on="question_id")
    band = (pl.col("chars").rank("min").cast(pl.Int64) - 1) * 4 // pl.len()  # equal lengths stay together
    quarter = band.cast(pl.String).replace_strict(
        {"0": "shortest quarter", "1": "second", "2": "third", "3": "longest quarter"}, default=None
    )
    features = both.with_columns(quarter.alias("length")).drop("chars").collect()
    parts = []
    for name in FEATURES:
        value: pl.Expr = pl.col(name)
        if features.schema[name] == pl.Boolean:
            value = pl.when(value).then(pl.lit("yes")).otherwise(pl.lit("no"))
        marked = features.with_columns(value.alias("value"), pl.lit(name).alias("feature"))
        parts.append(accuracy_by_group_lazy(marked, ["feature", "value"]).drop("unparsed"))
    return pl.concat(pl.collect_all(parts))


def error_kinds(predictions: pl.DataFrame | pl.LazyFrame, by: tuple[str, ...] = ()) -> pl.DataFrame:
    """How a run goes wrong, one row per group (``("subject",)``; a single row without), sorted by it.

    ``predictions``: PREDICTION_SCHEMA. Columns: ``total`` questions, ``errors``, of which ``unparsed``,
    ``forced`` (letter forced after the model's own reasoning), ``confident`` (confidence of CONFIDENT or
    more; null if no answer has one), ``close`` (the key first or second by log-probability; null without
    log-probabilities); ``letter``, the most frequent wrong letter (the earlier on a tie), and its count,
    ``letter_errors``.
    """
    frame = with_correct_column(predictions)
    wrong = ~pl.col("correct") & PARSED
    logprobs = [
        pl.col("_logprobs").list.get(i, null_on_oob=True) for i in range(len(letters_of_frame(frame)))
    ]
    by_letter = zip(OPTION_LETTERS, logprobs, strict=False)
    key = pl.coalesce([pl.when(pl.col("answer") == letter).then(value) for letter, value in by_letter])
    above = pl.sum_horizontal([(value > key).cast(pl.Int64).fill_null(0) for value in logprobs])
    marked = frame.with_columns(logprobs_list().alias("_logprobs")).with_columns(
        (wrong & (above <= 1) & key.is_not_null()).alias("_close"), key.is_not_null().alias("_known")
    )
    wrong_letters = pl.col("prediction").filter(wrong)

    def counted(expression: pl.Expr, name: str) -> pl.Expr:
        return expression.sum().cast(pl.Int64).alias(name)

    confidence = pl.col("confidence")
    confident = wrong & (confidence >= CONFIDENT).fill_null(False)
    columns = [
        pl.len().cast(pl.Int64).alias("total"),
        counted(~pl.col("correct"), "errors"),
        counted(~PARSED, "unparsed"),
        counted(wrong & pl.col("forced").fill_null(False), "forced"),
        pl.when(confidence.count() > 0).then(counted(confident, "confident")),
        pl.when(pl.col("_known").any()).then(counted(pl.col("_close"), "close")),
        wrong_letters.mode().sort().first().alias("letter"),
        wrong_letters.unique_counts().max().fill_null(0).cast(pl.Int64).alias("letter_errors"),
    ]
    keys = list(by)
    rows = marked.collect()
    return rows.group_by(keys).agg(columns).sort(keys) if keys else rows.select(columns)


def confident_errors(predictions: pl.DataFrame | pl.LazyFrame, limit: int = 20) -> pl.DataFrame:
    """The most confident wrong answers: largest ``margin`` (nats) first, then confidence. Answers with
    neither (unparsed, imported letters) are left out.
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
