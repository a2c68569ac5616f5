"""Bodies that cost a server the most memory and time per byte, and a plain client that sends them."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

PATIENCE_S = 300.0
DEEP = 1000  # levels of nesting
DIGITS = 4000  # of an integer


@dataclass(frozen=True)
class Body:
    """A request's path, headers and body."""

    data: bytes = field(repr=False)
    path: str = "/invocations"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> bytes:
        """The request as it is sent."""
        headers = {"Content-Type": "application/json", **self.headers, "Content-Length": str(len(self.data))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode() + self.data


def send(port: int, body: Body) -> tuple[int, float]:
    """The status of the response, 0 if there is none, and the seconds from the body's last byte to the response's."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with suppress(ConnectionError):  # it was rejected, and the response may still be read
            connection.sendall(body.request)
        started = time.perf_counter()
        with suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                answer = answer or part
    return int(answer[9:12] or b"0"), time.perf_counter() - started


def ordinary(size: int) -> Body:
    """Texts of about a kilobyte."""
    text = "word " * 200
    return _records(size, ({"text": f"{row} {text}"} for row in count()))


def _filled(size: int, start: str, parts: Iterator[str], end: str) -> bytes:
    """JSON of about `size` bytes with as many `parts` as fit."""
    taken, length = [], len(start) + len(end)
    for part in parts:
        if length + len(part) > size:
            break
        taken.append(part)
        length += len(part) + 1
    return (start + ",".join(taken) + end).encode()


def _records(size: int, records: Iterator[Mapping[str, object]]) -> Body:
    parts = (json.dumps(record, separators=(",", ":")) for record in records)
    return Body(_filled(size, '{"dataframe_records":[', parts, "]}"))


def _repeated(part: str, start: str = '{"inputs":[', end: str = "]}") -> Callable[[int], Body]:
    """JSON with the same part again and again."""
    return lambda size: Body((start + ",".join([part] * (size // (len(part) + 1))) + end).encode())


def _different_keys(size: int) -> Body:
    return _records(size, ({"text": "", f"k{row}": 1} for row in count()))


def _one_value_for_all(size: int) -> Body:
    rows = ",".join(['""'] * (size // 6))
    return Body(_filled(size, f'{{"inputs":{{"text":[{rows}],', (f'"c{n}":1' for n in count()), "}}"))


def _similar_names(size: int) -> Body:
    names = _filled(size, "[", (f'"tex{n:07d}"' for n in count()), "]")
    return Body(b'{"dataframe_split":{"columns":' + names + b',"data":[]}}')


def _keys(size: int) -> Body:
    return Body(_filled(size, "{", (f'"input{n}":1' for n in count()), "}"))


def _quoted(size: int) -> Body:
    record = r"{\"text\":\"\"}"
    return _repeated(record, '"[', ']"')(size)


def _csv(text: str) -> Body:
    return Body(text.encode(), headers={"Content-Type": "text/csv"})


def _binary(size: int, datatype: str, element: bytes) -> Body:
    tensor = {"name": "text", "datatype": datatype, "shape": [size // len(element)]}
    rows = size // len(element)
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": rows * len(element)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return Body(head + element * rows, "/v2/models/sleeping/infer", headers)


def _parquet(size: int) -> Body:
    """One value in as many rows as there are groups of four bytes: a few kilobytes in fact."""
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": pyarrow.array([""] * (size // 4))}), file)
    return Body(file.getvalue(), headers={"Content-Type": "application/vnd.apache.parquet"})


def _gzip(size: int) -> Body:
    return Body(gzip.compress(_repeated('""')(size).data), headers={"Content-Encoding": "gzip"})


def _big_integers(size: int) -> Body:
    return _repeated("9" * DIGITS, '{"inputs":[NaN,')(size)


SHAPES: dict[str, Callable[[int], Body]] = {
    "different keys": _different_keys,
    "one value for all rows": _one_value_for_all,
    "lists": _repeated('["a"]', '{"dataframe_split":{"columns":["text"],"data":[', "]}}"),
    "records": _repeated('{"text":""}', '{"dataframe_records":[', "]}"),
    "empty lists": _repeated("[]"),
    "empty objects": _repeated("{}"),
    "empty texts": _repeated('""'),
    "numbers": _repeated("1"),
    "deep": _repeated("[" * DEEP + "]" * DEEP),
    "NaN": _repeated("1", '{"inputs":[NaN,'),
    "big integers": _big_integers,
    "one text": lambda size: Body(b'{"inputs":["' + b"a" * size + b'"]}'),
    "escapes": lambda size: Body(b'{"inputs":["' + b'\\"' * (size // 2) + b'"]}'),
    "keys": _keys,
    "similar names": _similar_names,
    "quoted": _quoted,
    "blank lines": lambda size: _csv("text\n" + "\n" * size),
    "one line": lambda size: _csv("text" + "," * size + "\n"),
    "binary texts": lambda size: _binary(size, "BYTES", struct.pack("<I", 0)),
    "binary numbers": lambda size: _binary(size, "UINT8", b"\1"),
    "gzip": _gzip,
    "Parquet": _parquet,
}
