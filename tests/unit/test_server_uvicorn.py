"""The members of uvicorn's classes that the server overrides and uses exist in the installed version."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl

from likewise.server.protocol import LimitedProtocol
from likewise.server.request_head import LimitedHead
from likewise.server.run import _Server

OVERRIDDEN = {
    "HttpToolsProtocol": """
        connection_made connection_lost data_received pause_writing resume_writing on_message_begin on_header
        on_headers_complete on_body on_message_complete on_response_complete timeout_keep_alive_handler
        _start_asgi_task""",
    "Server": "startup shutdown on_tick handle_exit capture_signals",
}
USED = {
    "HttpToolsProtocol": """
        client cycle flow headers loop parser pipeline server_state timeout_keep_alive timeout_keep_alive_task transport
        url _unset_keepalive_if_required""",
    "RequestResponseCycle": "disconnected message_event response_complete response_started",
    "FlowControl": "pause_reading resume_reading",
    "Server": "force_exit run server_state servers should_exit",
    "ServerState": "connections default_headers",
}
OURS = {"HttpToolsProtocol": (LimitedHead, LimitedProtocol), "Server": (_Server,)}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def live() -> dict[str, set[str]]:
    """The members of uvicorn's objects while they serve a request, by class."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    await reader.readline()
    (connection,) = server.server_state.connections
    assert isinstance(connection, httptools_impl.HttpToolsProtocol)
    objects = (server, server.server_state, connection, connection.cycle, connection.flow)
    members = {type(member).__name__: set(dir(member)) for member in objects}
    writer.close()
    server.should_exit = True
    await serving
    return members


@pytest.fixture(scope="module")
def members() -> dict[str, set[str]]:
    return asyncio.run(live())


@pytest.mark.parametrize("name", sorted(OVERRIDDEN.keys() | USED.keys()))
def test_overridden_and_used_members_exist(members: dict[str, set[str]], name: str) -> None:
    needed = {*OVERRIDDEN.get(name, "").split(), *USED.get(name, "").split()}
    missing = sorted(needed - members[name])
    assert not missing, (
        f"uvicorn {uvicorn.__version__} has no {name}.{', '.join(missing)}, which likewise.server overrides or uses: "
        "keep it out of pyproject.toml's range, or adapt likewise/server/{request_head,protocol,run}.py"
    )
    assert hasattr(httptools_impl, "STATUS_LINE")


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_no_other_member_of_uvicorn_is_overridden(members: dict[str, set[str]], name: str) -> None:
    defined = {member for kind in OURS[name] for member in vars(kind) if not member.startswith("__")}
    accidental = sorted(defined & members[name] - set(OVERRIDDEN[name].split()) - {"_abc_impl"})
    assert not accidental, (
        f"uvicorn {uvicorn.__version__} has {name}.{', '.join(accidental)} and likewise.server overrides it; "
        "rename Likewise's member, or add it to OVERRIDDEN"
    )
