"""The container's codec in the app: as many lines out as rows in, for a model without a signature."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from tests.support.server_app import Upper, client_of

from likewise.container.app import line_codec
from likewise.core.items import Request, Row
from likewise.core.signature import Signature
from likewise.server import ServedModel
from likewise.server.app import create_app

CSV, JSON_LINES = "text/csv", "application/jsonlines"


class Whole(Upper):
    """Returns `answer` of the rows of each request, which it takes as a whole or row by row."""

    def __init__(self, answer: Callable[[Sequence[tuple[Any, ...]]], object], *, row_wise: bool) -> None:
        super().__init__(row_wise=row_wise)
        self._answer = answer

    def _predict(self, item: Any) -> object:
        if isinstance(item, Request):
            return self._answer(item.table.rows)
        assert isinstance(item, Row)
        return self._answer([item.values])


def post(engine: Upper, body: str, content_type: str, accept: str) -> httpx.Response:
    model = ServedModel(name="m", digest="sha256:abc", signature=Signature())

    async def send() -> httpx.Response:
        async with client_of(create_app(lambda: engine, model, codec=line_codec(Signature()))) as client:
            return await client.post(
                "/invocations", content=body, headers={"Content-Type": content_type, "Accept": accept}
            )

    return asyncio.run(send())


def firsts(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [row[0] for row in rows]


@pytest.mark.parametrize("accept", [CSV, JSON_LINES])
@pytest.mark.parametrize("content_type", [CSV, f"{CSV}; header=absent"])
def test_a_csv_without_a_header_loses_no_row(content_type: str, accept: str) -> None:
    response = post(Whole(firsts, row_wise=False), "1,2\n3,4\n5,6\n", content_type, accept)
    assert (response.status_code, response.text) == (200, "1\n3\n5\n")
    by_row = post(Whole(lambda rows: rows[0][0], row_wise=True), "1,2\n3,4\n5,6\n", content_type, accept)
    assert (by_row.status_code, by_row.text) == (200, "1\n3\n5\n")


def test_a_header_is_declared() -> None:
    unclear = post(Whole(firsts, row_wise=False), "a,b\n3,4\n", CSV, CSV)
    assert unclear.status_code == 400
    assert "header=present" in unclear.json()["remedy"]
    assert post(Whole(firsts, row_wise=False), "a,b\n3,4\n", f"{CSV}; header=present", CSV).text == "3\n"


def test_columns_are_written_as_one_line_per_row() -> None:
    engine = Whole(lambda rows: {"x": firsts(rows), "n": [1] * len(rows)}, row_wise=False)
    assert post(engine, "5\n6\n", CSV, CSV).text == "5,1\n6,1\n"


def test_another_number_of_predictions_is_an_error_with_both_counts() -> None:
    response = post(Whole(lambda rows: firsts(rows)[1:], row_wise=False), "1\n2\n3\n", CSV, JSON_LINES)
    assert response.status_code == 415
    assert "2 predictions for 3 rows" in response.json()["message"]
    assert post(Whole(lambda rows: firsts(rows)[1:], row_wise=False), "1\n2\n3\n", CSV, "*/*").json() == {
        "predictions": [2, 3]
    }


def test_a_line_break_in_an_answer_is_an_error_of_csv() -> None:
    engine = Whole(lambda rows: ["a\nb"] * len(rows), row_wise=False)
    response = post(engine, "1\n2\n", CSV, CSV)
    assert response.status_code == 415
    assert JSON_LINES in response.json()["remedy"]
    assert post(engine, "1\n2\n", CSV, JSON_LINES).text == '"a\\nb"\n' * 2
