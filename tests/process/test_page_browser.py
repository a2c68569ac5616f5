"""The page at `/` in a real browser: requests, files, downloads, errors, charts, tokens, code; and no other host."""

import ast
import asyncio
import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.browser import Tab, chromium
from tests.support.model_server import model_app
from tests.support.models import upper_bundle
from tests.support.processes import LIKEWISE, running
from tests.support.server_app import mounted
from tests.support.service import Gate, Service, served

MOST_BYTES = 200_000  # of the page, all files together, as sent
MOST_S = 1.0  # until the first point of a chart, on an idle machine
READY = "document.querySelector('#page') && !document.querySelector('#page').hidden"
COLUMNS = ["row", "answer.label", "answer.score", "answer.language", "answer.id", "markup", "text"]
ID = str(2**53 + 1)  # not a number of JavaScript


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("page") / "log", "sentiment") as started:
        yield started


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server with a model of each kind below a prefix, and one that needs the token `right`."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("right")
    apps = {name: model_app(name) for name in ("kinds", "nested", "numbers", "tensor", "upper")}
    apps["locked"] = model_app("numbers", token_file=tokens)
    with mounted(apps) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with chromium() as tab:
        tab.size(1280, 1000)
        yield tab


@pytest.fixture
def tab(browser: Tab, service: Service) -> Iterator[Tab]:
    """The page, opened again; checks afterwards that it sent nothing to another host, and reported no problem."""
    shown(browser, service.url)
    yield browser
    assert {urlsplit(url).netloc for url in browser.urls if not url.startswith("blob:")} == {service.authority}
    assert [each for each in browser.problems if "422" not in each and "400" not in each] == []


def shown(tab: Tab, url: str) -> None:
    tab.open(f"{url}/")
    tab.until(READY)


def mode(tab: Tab, name: str) -> None:
    tab.click(f"[name=mode][value={name}]")


def send(tab: Tab) -> str:
    """Send what is in the form; the status of the answer."""
    tab.value("document.querySelector('#status').replaceChildren()")
    tab.click("#send")
    tab.until("/OK|Not|Bad|Unproc|No resp|completed/.test(document.querySelector('#status').innerText)")
    return tab.text("#status")


def downloaded(tab: Tab, folder: Path) -> list[list[str]]:
    tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    file = folder / "predictions.csv"
    tab.click("#download")
    while not file.exists() or not file.stat().st_size:
        tab.value("1")
    with file.open(newline="") as lines:
        return list(csv.reader(lines))


def test_one_row_is_answered_unfolded_and_without_rounding(tab: Tab) -> None:
    tab.fill("#columns-text", '<i>"quoted" & long</i>')
    assert send(tab).startswith("200 OK")
    assert tab.text("#answer .headline") == "Positive\nlabel"
    answer = tab.text("#answer")
    assert re.findall("score|language|id|markup", answer) == ["score", "language", "id", "markup"]
    assert ID in answer
    assert '<b><i>"quoted" & long</i></b>' in answer
    assert tab.text("#answer .steps").startswith("total") or "queue" in tab.text("#answer .steps")
    assert tab.value("document.querySelectorAll('#answer i, #answer b').length") == 0


def test_the_page_is_small_and_its_first_chart_is_quick(tab: Tab) -> None:
    assert sum(tab.received.values()) < MOST_BYTES
    tab.until("performance.getEntriesByName('first point').length")
    seconds = tab.value("performance.getEntriesByName('first point')[0].startTime / 1000")
    assert seconds < 10 * MOST_S  # the tests share the machine


def test_a_pasted_table_is_a_table_and_a_download(tab: Tab, tmp_path: Path) -> None:
    mode(tab, "table")
    tab.fill("#pasted", 'text\nFirst, with a comma\n"two\nlines"\n=1+1\n')
    assert "for 3 rows" in send(tab)
    assert tab.value("document.querySelectorAll('#answer tbody tr').length") == 3
    heads = tab.value("[...document.querySelectorAll('#answer th')].map((each) => each.textContent)")
    assert heads == ["row", "label", "score", "language", "id", "markup", "text"]
    first, *rows = downloaded(tab, tmp_path)
    assert first == COLUMNS
    assert [row[-1] for row in rows] == ["First, with a comma", "two\nlines", "=1+1"]
    assert {row[4] for row in rows} == {ID}


def test_a_long_csv_is_sent_in_parts_and_a_bad_row_is_named(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,other\n" + "".join(f'"row {i}, text",{i}\n' for i in range(450)))
    mode(tab, "file")
    tab.choose("#file", file)
    assert "for 450 rows" in send(tab)
    assert tab.value("document.querySelectorAll('#answer tbody tr').length") == 200
    rows = downloaded(tab, tmp_path)
    assert [row[-2:] for row in rows[1:]] == [[f"row {i}, text", str(i)] for i in range(450)]
    file.write_text("text\n" + "".join(f"{'bad' if i == 412 else 'row'} {i}\n" for i in range(450)))
    tab.choose("#file", file)
    assert send(tab).startswith("422")
    error = tab.text("#error")
    assert "row 412: " in error
    assert "Remedy: " in error
    assert tab.value("document.querySelectorAll('#answer tbody tr').length") == 200  # of the 400 that were answered


def test_a_csv_is_sent_with_the_params_on_the_page(browser: Tab, variants: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        'text,of long,of boolean,of double,other\n"a ""b"", c",9007199254740993,true,,1\n5,-7,FALSE,1e3,x\n'
    )
    shown(browser, f"{variants}/kinds")
    mode(browser, "file")
    browser.choose("#file", file)
    seen = {}
    for temperature in ("0.5", "0.25"):  # the first is the default, which CSV means
        browser.fill("#params-temperature", temperature)
        assert "for 2 rows" in send(browser), browser.text("#error")
        sent = browser.value("document.querySelector('#sent').textContent")
        assert sent.startswith("text,of long" if temperature == "0.5" else '{"dataframe_records"')
        answers = json.loads(browser.value("document.querySelector('#body').textContent"))["predictions"]
        assert [each["params"]["temperature"] for each in answers] == [float(temperature)] * 2
        seen[temperature] = [dict(zip(each["columns"], each["values"], strict=True)) for each in answers]
    first, second = seen["0.25"]
    assert seen["0.5"] == seen["0.25"]
    assert (first["text"], first["of long"], first["of boolean"], first["of double"]) == (
        'a "b", c',
        2**53 + 1,
        True,
        None,
    )
    assert (second["text"], second["of boolean"], second["of double"]) == ("5", False, 1000.0)


def test_a_running_file_can_be_cancelled(browser: Tab, variants: str, tmp_path: Path) -> None:
    gate, file = Gate(tmp_path), tmp_path / "rows.csv"
    file.write_text("text\n" + "".join(f"{gate.text if i == 250 else f'row {i}'}\n" for i in range(450)))
    shown(browser, f"{variants}/upper")
    mode(browser, "file")
    browser.choose("#file", file)
    browser.click("#send")
    try:
        asyncio.run(gate.reached())
        browser.until("document.querySelector('#status').innerText === '200 of 450 rows'")
        assert browser.value("document.querySelector('#progress').value") == 200
        browser.click("#cancel")
        browser.until("document.querySelector('#status').innerText === 'Not completed'")
    finally:
        gate.open()
    assert browser.text("#error") == "cancelled after 200 of 450 rows"
    assert [row[-1] for row in downloaded(browser, tmp_path)[1:]] == [f"row {i}" for i in range(200)]
    assert not browser.value("document.querySelector('#send').disabled || !document.querySelector('#cancel').hidden")


def test_json_lines_keep_their_digits(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "row {i}", "key": {2**60 + i}}}\n' for i in range(3)))
    mode(tab, "file")
    tab.choose("#file", file)
    assert "for 3 rows" in send(tab)
    assert [row[-1] for row in downloaded(tab, tmp_path)[1:]] == [str(2**60 + i) for i in range(3)]
    file.write_text('{"text": "row"}\nnot json\n')
    tab.choose("#file", file)
    assert send(tab) == "Not completed"
    assert tab.text("#error").startswith("line 2 is not JSON")


def test_errors_of_the_server_have_their_remedy(tab: Tab) -> None:
    tab.fill("#columns-text", "bad text")
    assert send(tab).startswith("422")
    assert "'bad text' is bad" in tab.text("#error")
    mode(tab, "table")
    tab.fill("#pasted", "a\tb\n1\t2\n")
    assert send(tab).startswith("400")
    assert "Remedy: " in tab.text("#error")


def test_the_history_refills_the_form_and_outlives_a_reload(tab: Tab, service: Service) -> None:
    tab.fill("#columns-text", "an earlier text")
    send(tab)
    shown(tab, service.url)
    tab.click("#history button")
    assert tab.value("document.querySelector('#columns-text').value") == "an earlier text"
    assert tab.value("document.activeElement.id") == "send"


def test_charts_show_the_requests_in_words_too(tab: Tab) -> None:
    tab.until("performance.getEntriesByName('first point').length")
    send(tab)
    figure = "[...document.querySelectorAll('.canvas')].map((each) => each.ariaLabel)"
    tab.until(f"{figure}.some((label) => /^Chart: Latency, ms; now p50 [0-9.]+, p95/.test(label))")
    labels = tab.value(figure)
    titles = [re.match(r"Chart: ([\w ]+), ", label) for label in labels]
    assert [title and title[1] for title in titles] == [
        *("Requests", "Errors", "Latency", "Queue", "Batch size", "Padding", "Cache", "Shed")
    ]
    painted = (
        "(c => new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer).some(Boolean))"
        "(document.querySelector('.canvas canvas'))"
    )
    assert tab.value(painted)


def test_charts_show_all_requests_to_a_server_with_two_workers(browser: Tab, tmp_path: Path) -> None:
    bundle = upper_bundle(tmp_path / "bundle")
    words = [*LIKEWISE, "serve", str(bundle), "--trust", "--workers", "2", "-p", "0", "--json"]
    with running(words, tmp_path / "log") as process:
        shown(browser, str(process.document()["url"]))
        browser.until("performance.getEntriesByName('first point').length")
        texts = "\\n".join(["text", *map(str, range(40))])
        mode(browser, "table")
        browser.value(f"document.querySelector('#pasted').value = '{texts}'")
        assert "for 40 rows" in send(browser)
        label = "[...document.querySelectorAll('.canvas')].map((each) => each.ariaLabel).join()"
        browser.until(f"/Batch size, items; now mean [1-9]/.test({label}) && /p50 [0-9.]+, p95/.test({label})")
        text = "fetch('metrics').then((response) => response.text())"
        browser.until(f"{text}.then((text) => /^likewise_workers.* 2[.]0$/m.test(text))")  # the second is loaded later
        assert browser.text("#live") == "the last minutes of this server process, all clients"
        assert browser.problems == []


def test_the_code_sends_what_is_in_the_form(tab: Tab, tmp_path: Path) -> None:
    text = 'it\'s "100 %" C:\\dir\nñ 😀'
    tab.fill("#columns-text", text)
    tab.click("#code summary")
    codes = {}
    for language in ("curl", "python", "javascript"):
        tab.value(
            f"(field => {{ field.value = '{language}'; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})"
            "(document.querySelector('#language'))"
        )
        start = {"curl": "curl ", "python": "import ", "javascript": "const "}[language]
        tab.until(f"document.querySelector('#snippet').textContent.startsWith('{start}')")
        codes[language] = tab.value("document.querySelector('#snippet').textContent")
    expected = f"<b>{text}</b>"
    words = shlex.split(codes["curl"].replace("\\\n", ""))
    assert json.loads(words[words.index("--data-raw") + 1]) == {"dataframe_records": [{"text": text}]}
    printed = subprocess.run([sys.executable, "-c", codes["python"]], capture_output=True, text=True, check=True).stdout
    assert json.loads(ast.literal_eval(printed)["predictions"][0])["markup"] == expected
    run = codes["javascript"].replace("console.log(", "return JSON.stringify(")
    answer = json.loads(tab.value(f"(async () => {{ {run} }})()"))
    assert json.loads(answer["predictions"][0])["markup"] == expected


def test_the_keyboard_reaches_and_sends_the_form(tab: Tab) -> None:
    reached = []
    for _ in range(12):
        tab.key("Tab", 9)
        reached.append(tab.value("document.activeElement.id || document.activeElement.value"))
    wanted = ["row", "columns-text", "send"]
    assert [each for each in reached if each in wanted] == wanted
    tab.value("document.querySelector('#columns-text').focus()")
    tab.key("Enter", 13, modifiers=2)
    tab.until("document.querySelector('#status').innerText.startsWith('200')")


@pytest.mark.parametrize("width", [360, 390])
def test_nothing_is_wider_than_a_phone(tab: Tab, width: int) -> None:
    try:
        tab.size(width, 800)
        send(tab)
        mode(tab, "table")
        assert tab.value("document.documentElement.scrollWidth") == width
    finally:
        tab.size(1280, 1000)


def test_every_control_has_a_name(tab: Tab) -> None:
    tab.send("Accessibility.enable")
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "radio", "combobox", "image", "link", "progressbar"}
    controls = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in roles]
    assert len(controls) > 15
    assert [node for node in controls if not node["name"]["value"]] == []
    tab.send("Accessibility.disable")


def test_a_token_is_requested_used_and_forgotten_if_it_is_wrong(browser: Tab, variants: str) -> None:
    browser.open(f"{variants}/locked/")
    browser.until("document.activeElement.id === 'token'")
    assert "numbers" not in browser.text("body")
    browser.fill("#token", "wrong")
    browser.click("#unlock button")
    browser.until("document.querySelector('#refused').innerText !== ''")
    assert "the token is not valid for this server" in browser.text("#refused")
    assert "Remedy: " in browser.text("#refused")
    browser.fill("#token", "right")
    browser.click("#unlock button")
    browser.until(READY)
    assert send(browser).startswith("200")
    browser.click("#code summary")
    browser.until("document.querySelector('#snippet').textContent.includes('Bearer TOKEN')")
    assert [url for url in browser.urls if "right" in url] == []
    assert [each for each in browser.problems if "401" not in each] == []


@pytest.mark.parametrize("model", ["kinds", "nested", "numbers", "tensor"])
def test_the_example_of_each_kind_of_signature_is_answered(browser: Tab, variants: str, model: str) -> None:
    shown(browser, f"{variants}/{model}")
    assert send(browser).startswith("200"), browser.text("#error")
    if model == "numbers":
        browser.fill("#columns-n", ID)
        browser.fill("#columns-x", "1")
        send(browser)
        assert ID in browser.text("#answer")
    assert browser.problems == []
