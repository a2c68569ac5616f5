"""The UDF next to `mlflow.pyfunc.spark_udf` in one session: arguments, calling forms, what models get, results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType
from tests.support.models import seal
from tests.support.own_index import make_links, save_versioned, settings
from tests.support.spark.answering import VARIABLE
from tests.support.wheels import PRIVATE

import likewise.spark
from likewise import api
from likewise.batch import ScoreOptions
from likewise.core.errors import WrongUsage

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
CODE = Path(__file__).parents[1] / "support" / "spark" / "answering.py"
NESTED = (
    "number int, matrix array<double>, holes array<double>, deep array<array<int>>, "
    "pairs array<struct<a: int, b: string>>, mapping map<string, int>, record struct<b: string, a: bigint>"
)
Bundles = Callable[..., api.Bundle]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles of the answering model, one per signature."""
    made: dict[str, api.Bundle] = {}

    def bundle(inputs: Sequence[Any] = (), outputs: Sequence[Any] = (), answer: str = "doubles") -> api.Bundle:
        if (key := repr((inputs, outputs, answer))) not in made:
            folder = tmp_path_factory.mktemp("answering") / "bundle"
            params = ParamSchema([ParamSpec("answer", "string", answer)])
            signature = ModelSignature(
                Schema(list(inputs)) if inputs else None, Schema(list(outputs)) if outputs else None, params
            )
            mlflow.pyfunc.save_model(
                folder / "model",
                python_model=str(CODE),
                signature=signature,
                model_config={"alpha": 1},
                pip_requirements=["mlflow"],
            )
            made[key] = api.open_bundle(seal(folder).path, trust=True)
        return made[key]

    return bundle


@pytest.fixture
def new_york(spark: Any) -> Iterator[None]:
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    yield
    spark.conf.unset("spark.sql.session.timeZone")


def values_of(frame: Any, udf: Any, *columns: Any) -> list[Any]:
    return [row[0] for row in frame.select(udf(*columns)).collect()]


def both(spark: Any, bundle: api.Bundle, frame: Any, columns: Sequence[Any], **options: Any) -> tuple[Any, Any]:
    """Schema and values of the column of each UDF: MLflow's, and ours."""
    plain = mlflow.pyfunc.spark_udf(spark, str(bundle.model_path), **options)
    ours = likewise.spark.udf(spark, bundle, **options)
    selected = [frame.select(udf(*columns).alias("result")) for udf in (plain, ours)]
    first, second = ((each.schema, each.collect()) for each in selected)
    return first, second


def test_arguments_are_those_of_mlflows_udf(bundles: Bundles) -> None:
    reference = inspect.signature(mlflow.pyfunc.spark_udf).parameters
    ours = inspect.signature(likewise.spark.udf).parameters
    for name, parameter in zip(reference, list(ours.values())[: len(reference)], strict=True):
        assert (parameter.name, parameter.default, parameter.kind) == (
            name,
            reference[name].default,
            reference[name].kind,
        )
    assert all(each.kind is each.KEYWORD_ONLY for each in list(ours.values())[len(reference) :])


@pytest.mark.parametrize(
    ("answer", "result_type"),
    [
        ("columns", "int"),
        ("columns", "array<double>"),
        ("columns", "array<string>"),
        ("columns", "text string, flag boolean, double double, wide bigint"),
        ("columns", "bool"),
        ("nested", NESTED),
        ("tuples", "array<struct<a: int, b: string>>"),
        ("arrays", "array<array<float>>"),
        ("doubles", None),
    ],
)
def test_results_are_those_of_mlflows_udf(spark: Any, bundles: Bundles, answer: str, result_type: str | None) -> None:
    reference, ours = both(
        spark, bundles(), spark.range(2).coalesce(1), ["id"], result_type=result_type, params={"answer": answer}
    )
    assert ours == reference


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        (ColSpec("datetime"), "when"),
        (TensorSpec(np.dtype("float64"), (-1,)), "doubles"),
        (TensorSpec(np.dtype("float64"), (2, 2)), "arrays"),
    ],
)
@pytest.mark.usefixtures("new_york")
def test_results_of_declared_types_are_those_of_mlflows_udf(
    spark: Any, bundles: Bundles, output: Any, answer: str
) -> None:
    bundle = bundles(outputs=[output])
    reference, ours = both(spark, bundle, spark.range(1), ["id"], params={"answer": answer})
    assert ours == reference


def test_declared_types_that_mlflows_udf_cannot_convert(spark: Any, bundles: Bundles) -> None:
    from pyspark.errors import PythonException

    matrix = bundles(outputs=[TensorSpec(np.dtype("float64"), (-1, 2))])
    frame = spark.range(1)
    plain = mlflow.pyfunc.spark_udf(spark, str(matrix.model_path), params={"answer": "matrix"})
    with pytest.raises(PythonException):
        values_of(frame, plain, "id")
    udf = likewise.spark.udf(spark, matrix, params={"answer": "matrix"})
    assert values_of(frame, udf, "id") == [[1.5, 1.5]]
    anything = likewise.spark.udf(spark, bundles(outputs=[ColSpec(AnyType())]), params={"answer": "anything"})
    (value,) = values_of(frame, anything, "id")
    assert value.toPython() == {"a": [1, None]}


TYPED_COLUMNS = {
    "boolean": "true",
    "tinyint": "1Y",
    "smallint": "2S",
    "int": "3",
    "bigint": "9007199254740993L",
    "float": "float(0.1)",
    "double": "0.1D",
    "decimal": "1.50BD",
    "string": "'naïve'",
    "binary": "X'0001ff'",
    "date": "date'2024-07-01'",
    "timestamp": "timestamp'2024-07-01 08:00:00.123456'",
    "timestamp_ntz": "timestamp_ntz'2024-07-01 08:00:00'",
    "struct": "named_struct('a', 1, 'b', timestamp'2024-07-01 08:00:00')",
    "map": "map('k', 1)",
    "array": "array(1, 2)",
    "array of structs": "array(named_struct('a', array('x')))",
    "interval": "interval '1' day",
}


@pytest.mark.usefixtures("new_york")
def test_models_get_the_values_that_they_get_from_mlflows_udf(spark: Any, bundles: Bundles) -> None:
    names = {str(index): kind for index, kind in enumerate(TYPED_COLUMNS)}
    frame = spark.range(1).selectExpr(*(f"{value} as `{kind}`" for kind, value in TYPED_COLUMNS.items()))
    columns = [f"`{kind}`" for kind in TYPED_COLUMNS]
    reference, ours = both(spark, bundles(), frame, columns, result_type="string", params={"answer": "types"})
    lines = [dict(line.split(": ", 1) for line in rows[0][0].split("\n")) for _, rows in (reference, ours)]
    expected, given = ({names[name]: value for name, value in each.items()} for each in lines)
    for kind in ("timestamp", "timestamp_ntz"):  # microseconds are exact for all of Spark's times
        expected[kind] = expected[kind].replace("datetime64[ns]", "datetime64[us]")
    expected["struct"] = expected["struct"].replace(
        "Timestamp('2024-07-01 08:00:00')", "datetime.datetime(2024, 7, 1, 8, 0)"
    )
    assert given == expected


@pytest.mark.usefixtures("new_york")
def test_timestamps_for_a_datetime_signature_are_in_the_sessions_zone(spark: Any, bundles: Bundles) -> None:
    bundle = bundles([ColSpec("datetime", "x")])
    frame = spark.sql("select timestamp'2024-07-01 08:00:00.123456' as x union all select null").coalesce(1)
    reference, ours = both(spark, bundle, frame, [], result_type="string", params={"answer": "types"})
    assert ours == reference
    assert "2024-07-01 08:00:00.123456" in ours[1][0][0]
    scored = likewise.spark.score_frame(frame, bundle, params={"answer": "types"})
    rows = scored.collect()
    assert [row["x"] for row in rows] == [row["x"] for row in frame.collect()]
    assert [row["error"] for row in rows] == [None, None]
    assert "2024-07-01 08:00:00.123456" in rows[0]["predictions"]


@pytest.mark.usefixtures("new_york")
def test_timestamps_of_a_table_are_in_the_sessions_zone(spark: Any, bundles: Bundles, tmp_path: Path) -> None:
    bundle = bundles([ColSpec("datetime", "x")], answer="types")
    spark.sql("select timestamp'2024-07-01 08:00:00' as x").createOrReplaceTempView("moments")
    options = ScoreOptions(runner="spark", format="parquet")
    likewise.score(bundle.path, "table:moments", tmp_path / "out", options=options, trust=True)
    (row,) = pq.read_table(next((tmp_path / "out").glob("part-*"))).to_pylist()
    assert row["x"] == datetime.fromisoformat("2024-07-01T12:00:00+00:00")
    assert "2024-07-01 08:00:00" in row["predictions"]


@pytest.mark.parametrize(
    ("inputs", "columns", "names"),
    [
        ((), ["a", "b"], "0,1"),
        ((), ["struct"], "b,a"),
        ((ColSpec("long", "b"), ColSpec("long", "a")), ["a", "b"], "b,a"),
        ((ColSpec("long", "b"), ColSpec("long", "a")), [], "b,a"),
        ((ColSpec("long", "b"), ColSpec("long", "a")), ["a", "b", "a"], "b,a"),
        ((ColSpec("long", "b"), ColSpec("long", "a")), ["struct"], "b,a"),
        ((ColSpec("long", "a"), ColSpec("string", "c", required=False)), ["a"], "a,c"),
        ((ColSpec("long"), ColSpec("long")), ["a", "b", "a"], "0,1"),
        ((ColSpec("long"), ColSpec("long")), ["struct"], "b,a"),
    ],
)
def test_calling_forms_are_those_of_mlflows_udf(
    spark: Any, bundles: Bundles, inputs: tuple[Any, ...], columns: list[str], names: str
) -> None:
    from pyspark.sql.functions import col, struct

    frame = spark.sql("select 1L as a, 2L as b")
    arguments = [struct(col("b"), "a") if name == "struct" else name for name in columns]
    reference, ours = both(spark, bundles(inputs), frame, arguments, result_type="string", params={"answer": "names"})
    assert ours == reference
    assert ours[1][0][0] == names


def test_wrong_calls_are_refused(spark: Any, bundles: Bundles) -> None:
    from pyspark.errors import PythonException

    inputs = [ColSpec("long", "a"), ColSpec("long", "b")]
    with pytest.raises(PythonException, match="2 columns"):
        values_of(spark.range(1), likewise.spark.udf(spark, bundles(inputs), "string"), "id")
    optional = bundles([ColSpec("long", "a"), ColSpec("string", "c", required=False)])
    with pytest.raises(WrongUsage, match="`c` is optional"):
        likewise.spark.udf(spark, optional, "string")()
    with pytest.raises(WrongUsage, match="names no columns"):
        likewise.spark.udf(spark, bundles(), "string")()


def test_flat_arrays_become_tensors(spark: Any, bundles: Bundles) -> None:
    bundle = bundles([TensorSpec(np.dtype("float64"), (-1, 2, 3), "x")])
    frame = spark.sql("select array(1D, 2D, 3D, 4D, 5D, 6D) as x")
    reference, ours = both(spark, bundle, frame, ["x"], result_type="string", params={"answer": "shapes"})
    assert ours == reference
    assert ours[1][0][0] == "(2, 3) [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]"


def test_environment_and_configuration_are_the_udfs_own(spark: Any, bundles: Bundles, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("alpha: 2\n")  # `spark_udf` takes its path as text only
    options: dict[str, Any] = {"result_type": "string", "params": {"answer": "settings"}}
    frame = spark.range(1)
    for given, expected in [
        ({"extra_env": {VARIABLE: "one"}, "model_config": str(config)}, "one 2 one"),
        ({"extra_env": {VARIABLE: "two"}, "model_config": {"alpha": 3, "unknown": 4}}, "two 3 two"),
        ({}, "None 1 None"),
    ]:
        reference, ours = both(spark, bundles(), frame, ["id"], **options, **given)
        assert ours == reference
        assert ours[1][0][0] == expected


def test_env_manager_is_honoured_or_refused(spark: Any, bundles: Bundles) -> None:
    for manager in ("local", "virtualenv", "uv", "conda"):
        udf = likewise.spark.udf(spark, model_uri=bundles(), env_manager=manager)
    assert values_of(spark.range(1), udf, "id") == [0.5]
    with pytest.raises(WrongUsage, match="env_manager is 'docker'"):
        likewise.spark.udf(spark, bundles(), env_manager="docker")
    with pytest.raises(WrongUsage, match="prebuilt_env_uri"):
        likewise.spark.udf(spark, bundles(), prebuilt_env_uri="dbfs:/env.tar.gz")


def test_env_manager_creates_the_environment_that_the_model_was_logged_with(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings(tmp_path / "cache", make_links(tmp_path / "index")).items():
        monkeypatch.setenv(name, value)
    model = save_versioned(tmp_path / "bundle" / "model", ["mlflow", f"{PRIVATE}==1.0"])
    bundle = seal(model.parent).path
    udf = likewise.spark.udf(spark, bundle, "string", "virtualenv", trust=True)
    frame = spark.createDataFrame([("a",), ("b",)], "text string")
    assert values_of(frame, udf, "text") == ["a of version 1.0", "b of version 1.0"]
    with pytest.raises(WrongUsage, match="ship=False does not send it"):
        likewise.spark.udf(spark, bundle, "string", "virtualenv", trust=True, ship=False)


def test_udf_is_a_function_in_sql(spark: Any, bundles: Bundles) -> None:
    udf = likewise.spark.udf(spark, bundles(), "string", params={"answer": "names"})
    spark.udf.register("predict_names", udf)
    assert [row[0] for row in spark.sql("select predict_names(1, 2)").collect()] == ["0,1"]
