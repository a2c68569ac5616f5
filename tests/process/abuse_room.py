"""A server process, whoever abuses it, and an ordinary client beside them."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

SCRIPT = Path(__file__).with_name("upper_server.py")
PATIENCE = 60  # seconds; none of these tests needs them
GROWTH = 64 * 1024 * 1024  # bytes: more than twice a body's limit; what is sent here would take gigabytes
ASKED = b'{"inputs": ["a"]}'
ANSWERED = {"predictions": [{"text": "A"}]}


class Target:
    """A server process with an ordinary client beside whoever abuses it."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._proc = Path(f"/proc/{pid}")

    def rss(self) -> int:
        """Resident bytes."""
        line = next(line for line in (self._proc / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def file_limit(self) -> int:
        """Files that the process may have open."""
        line = next(line for line in (self._proc / "limits").read_text().splitlines() if "open files" in line)
        return int(line.split()[3])

    def connect(self) -> socket.socket:
        raw = socket.create_connection(self.address)
        raw.settimeout(PATIENCE)
        return raw

    def ask(self, *parts: bytes) -> bytes:
        """All that comes back on one connection until the server closes it."""
        with self.connect() as raw:
            for part in parts:
                raw.sendall(part)
            return rest(raw)

    @contextlib.contextmanager
    def others_are_served(self) -> Iterator[None]:
        """Meanwhile somebody asks all the time, and is answered; memory is looked at as often."""
        before, most, wrong, answered = self.rss(), 0, list[str](), 0
        over = threading.Event()

        def ordinary() -> None:
            nonlocal most, answered
            with httpx.Client(base_url=self.url, timeout=PATIENCE) as client:
                while not (over.is_set() and answered):
                    try:
                        answer = client.post("/invocations", content=ASKED)
                        if answer.json() != ANSWERED:
                            wrong.append(answer.text)
                    except httpx.HTTPError as error:
                        wrong.append(repr(error))
                    answered += 1
                    most = max(most, self.rss())
                    over.wait(0.005)

        asking = threading.Thread(target=ordinary)
        asking.start()
        try:
            yield
        finally:
            over.set()
            asking.join(PATIENCE)
        assert answered
        assert not wrong, wrong[:3]
        assert most - before < GROWTH


def rest(raw: socket.socket) -> bytes:
    received = bytearray()
    while data := raw.recv(65_536):
        received += data
    return bytes(received)


def send_until_cut(raw: socket.socket, data: bytes) -> None:
    """Send, again and again; a server that neither reads nor cuts fails by TimeoutError."""
    with contextlib.suppress(ConnectionError):
        while True:
            raw.sendall(data)


def parsed(answers: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers (lower-case names) and body of each answer on a connection."""
    found = []
    while answers:
        head, _, answers = answers.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        found.append((int(status.split()[1]), headers, answers[:length]))
        answers = answers[length:]
    return found


def check_refusal(answers: bytes, status: int, said: str = "") -> None:
    """One answer: an error in the service's own form, with its own headers, on a connection that it then closed."""
    ((got, headers, body),) = parsed(answers)
    error = json.loads(body)
    assert (got, error["error_code"]) == (status, "BAD_REQUEST")
    assert said in error["message"]
    assert error["remedy"]
    assert (headers["x-likewise-bundle"], headers["x-likewise-engine"]) == ("sha256:abc", "upper/none")
    assert headers["x-request-id"]
    assert headers["connection"] == "close"


def head(*lines: str, path: str = "/invocations") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode("latin-1")


def request(body: bytes, *lines: str) -> bytes:
    return head(f"Content-Length: {len(body)}", *lines) + body


@contextlib.contextmanager
def target(log: Path, *arguments: str) -> Iterator[Target]:
    command = [sys.executable, str(SCRIPT), *arguments]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["listening"]
            assert json.loads(process.stdout.readline()) == {"ready": url}
            yield Target(url, process.pid)
            assert process.poll() is None
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
