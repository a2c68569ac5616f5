"""MLflow 3's unwrapped JSON for language models: the body is the model's input, the response the bare predictions.

Source: mlflow/pyfunc/utils/serving_data_parser.py and mlflow/pyfunc/scoring_server, 3.17.
"""

from __future__ import annotations

from likewise.core.items import Sent, Table
from likewise.wire.call import DecodedRequest, Form
from likewise.wire.frame import Fitter, Frame
from likewise.wire.params import ParamsFitter

KEYS = frozenset({"messages", "prompt", "input"})  # any of these top-level keys makes the body a document
_PLAIN = frozenset({"string", "boolean", "integer", "long", "float", "double"})


def parse_document(body: dict[str, object], fit: Fitter, fit_params: ParamsFitter) -> DecodedRequest:
    """Decode a document: keys that the signature declares as params become params; all others are the model's input.

    Raises BadRequest if a required column of the signature is missing.
    """
    data = {key: value for key, value in body.items() if key not in fit_params}
    params = fit_params({key: value for key, value in body.items() if key in fit_params})
    return DecodedRequest(_table(data, fit), params, Form.DOCUMENT)


def _table(data: dict[str, object], fit: Fitter) -> Table:
    """One row: an ordinary one if the values and the signature's columns are plain, else the document as sent."""
    frame = Frame(tuple(data), [list(data.values())], "the body")
    fields = fit.signature.inputs or ()
    named = fit.signature.columns is not None and all(field.kind in _PLAIN for field in fields)
    if named and not any(isinstance(value, (list, dict)) for value in data.values()):
        return fit(frame)
    return fit.whole(frame, Sent("document", data))
