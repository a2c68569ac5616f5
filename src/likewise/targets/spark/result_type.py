"""The Spark type of predictions: the requested one, or the one that the model's signature declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.signature import Field, Signature
from likewise.targets.spark.predictions import ResultType, converter

REMEDY = "use result_type='string', which accepts every prediction"
# MLflow's type names to Spark's
SIMPLE = {
    "string": "string",
    "long": "bigint",
    "integer": "int",
    "double": "double",
    "float": "float",
    "boolean": "boolean",
    "binary": "binary",
    "datetime": "timestamp",
    "any": "variant",
}
# NumPy's type names to Spark's
NUMPY = {"int64": "bigint", "int32": "int", "float64": "double", "float32": "float", "bool": "boolean", "str": "string"}


def spark_type(result_type: Any, signature: Signature, undeclared: str) -> Any:
    """The `pyspark.sql.types.DataType` of predictions.

    result_type: a DataType, or DDL as for `spark_udf` (`double`, `array<float>`, `label string, score double`); None
    for the type that the signature's outputs declare, `undeclared` if it declares none. WrongUsage for an invalid type.
    """
    types = need("pyspark.sql.types", extra="spark")
    if isinstance(result_type, types.DataType):
        return result_type
    ddl = declared_ddl(signature.outputs, undeclared) if result_type is None else str(result_type)
    try:
        return types.DataType.fromDDL("boolean" if ddl.strip().lower() == "bool" else ddl)
    except Exception as error:  # Spark's parser raises arbitrary errors of its JVM
        raise WrongUsage(f"{ddl!r} is not a valid Spark type: {str(error)[:200]}", remedy=REMEDY) from error


def result_type_of(kind: Any, zone: str, *, prints: bool) -> ResultType:
    """The `ResultType` for Spark's type `kind` and time zone; WrongUsage if predictions cannot have that type."""
    convert = need("pyspark.sql.pandas.types", extra="spark")
    try:
        result = ResultType(convert.to_arrow_type(kind, timezone="UTC"), zone, prints)
        converter(result)
    except WrongUsage:
        raise
    except Exception as error:
        raise WrongUsage(f"predictions cannot be of type {kind.simpleString()}: {error}", remedy=REMEDY) from error
    return result


def declared_ddl(outputs: Sequence[Field] | None, undeclared: str) -> str:
    """The Spark DDL of a signature's outputs: the type of a single output, a struct for several, `undeclared` for none.

    WrongUsage for tensors without a matching Spark type.
    """
    if not outputs:
        return undeclared
    if len(outputs) == 1:
        return _ddl(outputs[0].raw)
    kinds = [_member(field.raw) for field in outputs]
    names = [str(index) if field.name is None else field.name for index, field in enumerate(outputs)]
    return _struct(dict(zip(names, kinds, strict=True)))


def _ddl(spec: Mapping[str, Any]) -> str:
    kind = str(spec.get("type"))
    if kind in SIMPLE:
        return SIMPLE[kind]
    if kind == "array":
        return f"array<{_ddl(spec['items'])}>"
    if kind == "object":
        return _struct({str(name): _ddl(member) for name, member in spec["properties"].items()})
    if kind == "map":
        return f"map<string, {_ddl(spec['values'])}>"
    return _tensor(spec["tensor-spec"]) if kind == "tensor" else "string"


def _member(spec: Mapping[str, Any]) -> str:
    """The type of one of several outputs: of a tensor with one number per row, the number."""
    kind = _ddl(spec)
    one = len((spec.get("tensor-spec") or {}).get("shape") or ()) == 1
    return kind.removeprefix("array<").removesuffix(">") if one else kind


def _tensor(spec: Mapping[str, Any]) -> str:
    """The type of one row of a tensor; of a tensor without other dimensions it is an array, as in `spark_udf`."""
    element, shape = NUMPY.get(str(spec.get("dtype"))), list(spec.get("shape") or ())
    if element is None or not shape:
        raise WrongUsage(f"the model returns tensors ({dict(spec)}), which have no matching Spark type", remedy=REMEDY)
    depth = len(shape) - (shape[0] == -1 and len(shape) > 1)
    return "array<" * depth + element + ">" * depth


def _struct(members: Mapping[str, str]) -> str:
    quoted = {name.replace("`", "``"): kind for name, kind in members.items()}
    return f"struct<{', '.join(f'`{name}`: {kind}' for name, kind in quoted.items())}>"
