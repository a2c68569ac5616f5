"""The Grafana dashboard and the alert rules, with promtool and a Prometheus that scrapes a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.support.machine import need_program
from tests.support.processes import free_port, run, running
from tests.support.service import Service, served
from tests.support.waiting import until

import likewise.server

FOLDER = Path(likewise.server.__file__).parent / "monitoring"
ALERTS, DASHBOARD = FOLDER / "alerts.yml", json.loads((FOLDER / "grafana.json").read_text())
UNIT_TEST = Path(__file__).parents[1] / "data" / "alerts_test.yml"
VARIABLES = {"$bundle": ".*", "$instance": ".*", "$__rate_interval": "10s"}


def program(name: str) -> str:
    return need_program(name, "prometheus", "monitoring")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of all panels, with values for the dashboard's variables, and of all alerts."""
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield panel["title"], text
    for rule in rules():
        yield rule["alert"], rule["expr"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """The URL of a Prometheus with the alert rules, and the server that it scrapes, after some requests."""
    folder, binary = tmp_path_factory.mktemp("prometheus"), program("prometheus")
    with served(folder / "server.log", "text", capture=str(folder / "captures")) as service:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "likewise", "static_configs": [{"targets": [service.authority]}]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        url = f"http://127.0.0.1:{port}"
        with running(command, folder / "prometheus.log"), httpx.Client(base_url=service.url) as client:

            def has_rates() -> bool:
                client.post("/invocations", json={"inputs": ["some", "texts", "some", "bad one"]})
                client.post("/invocations", json={"inputs": ["some", "more"]})
                return all(query(url, f"rate(likewise_requests_total{{status='{each}'}}[10s])") for each in (200, 422))

            until(lambda: is_ready(f"{url}/-/ready"))
            until(has_rates)
            yield url, service


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).is_success
    except httpx.TransportError:
        return False


def query(url: str, expression: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=60).json()
    assert answer["status"] == "success", (expression, answer)
    return list(answer["data"]["result"])


def test_promtool_accepts_the_rules_and_each_fires(tmp_path: Path) -> None:
    promtool = program("promtool")
    run([promtool, "check", "rules", "--lint-fatal", ALERTS])
    unit = tmp_path / "test.yml"
    unit.write_text(UNIT_TEST.read_text().replace("RULES", str(ALERTS)))
    run([promtool, "test", "rules", unit])
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} == rule["annotations"].keys()
        assert rule["alert"] in UNIT_TEST.read_text()


def test_prometheus_evaluates_every_expression(prometheus: tuple[str, Service]) -> None:
    url, _ = prometheus
    empty = set()
    for where, expression in expressions():
        if not query(url, expression):
            empty.add(where)
    alerts = {rule["alert"] for rule in rules()}
    assert empty - alerts <= {"Errors"}  # there are no failed requests
    assert alerts - empty <= {"LikewisePoisonItems"}
    loaded = httpx.get(f"{url}/api/v1/rules", timeout=60).json()["data"]["groups"]
    assert [(rule["name"], rule["health"]) for group in loaded for rule in group["rules"]] == [
        (rule["alert"], "ok") for rule in rules()
    ]


def test_each_metric_is_exported(prometheus: tuple[str, Service]) -> None:
    _, service = prometheus
    page = httpx.get(f"{service.url}/metrics", timeout=60).text
    exported = set(re.findall(r"^(\w+)", page, re.MULTILINE))
    used = {name for _, text in expressions() for name in re.findall(r"\b(?:likewise|process)_\w+", text)}
    assert used
    assert used <= exported


def test_the_dashboard_has_the_form_that_grafana_imports() -> None:
    """Of the dashboard JSON model, https://grafana.com/docs/grafana/latest/dashboards/build-dashboards."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "bundle", "instance"}
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert "$bundle" in target["expr"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
