"""Reports of a comparison for people and for pipelines of CI: HTML, JSON and JUnit's XML."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from likewise.core.bounds import percent
from likewise.core.errors import LikewiseError, OutputRefused, WrongUsage
from likewise.parity.compare import Difference
from likewise.parity.result import BackendParity, Parity

FORMATS = (".json", ".html")
SHOWN = 50  # differences per backend in a page
HEADER = ("backend", "verdict", "rows", "at most differ", "bundle", "p50, p99", "time")


def check_paths(report: Path | None, junit: Path | None) -> None:
    """Raise WrongUsage or OutputRefused if a report could not be written, before it exists."""
    if report is not None and report.suffix.lower() not in FORMATS:
        raise WrongUsage(f"--report {report.name}: unknown format", remedy=f"use a name in {' or '.join(FORMATS)}")
    for path in (report, junit):
        if path is not None and not path.parent.is_dir():
            raise OutputRefused(f"the folder {path.parent} does not exist", remedy=f"mkdir -p {path.parent}")
        if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
            raise OutputRefused(f"{path} cannot be written", remedy="choose another path")


def write(result: Parity | LikewiseError, report: Path | None, junit: Path | None) -> None:
    """Write the files that are not None, about a comparison or why there is none; OutputRefused if one cannot be."""
    known = {"agrees": False, "error": result.as_dict()} if isinstance(result, LikewiseError) else result.as_dict()
    try:
        if report is not None:
            html = report.suffix.lower() == ".html"
            report.write_text(page(result) if html else json.dumps(known, indent=2), encoding="utf-8")
        if junit is not None:
            junit.write_bytes(as_junit(result))
    except OSError as error:
        raise OutputRefused(f"the report cannot be written: {error}", remedy="choose another path") from error


def table(parity: Parity) -> list[tuple[str, ...]]:
    """One row per backend, with the columns of HEADER."""
    return [(each.where, *_facts(each, parity)) for each in parity.places]


def title(parity: Parity) -> str:
    """What was compared."""
    return f"{parity.bundle[:19]}… on this machine with {parity.engine}, {parity.rows:,} rows of {parity.golden}"


def notes(parity: Parity) -> list[str]:
    """What the table does not say: the tolerance, the confidence, the seed, what was not compared."""
    others = "".join(f", {value:g} for {name}" for name, value in parity.tolerance_of.items())
    return [
        f"numbers within {parity.tolerance:g}{others} are close, everything else is compared exactly; bounds at "
        f"{percent(parity.confidence)} confidence, for rows like these; repeat with --seed {parity.seed}",
        *parity.omitted,
    ]


def _facts(backend: BackendParity, parity: Parity) -> tuple[str, ...]:
    verdict = backend.verdict if backend.agrees else backend.verdict.upper()
    bound = percent(backend.bound) if backend.rows else ""
    times = [_milliseconds(value) for value in (backend.p50_ms, backend.p99_ms) if value is not None]
    took = f"{', '.join(times)} ms" if times else ""
    return (verdict, _rows(backend), bound, _bundle(backend, parity), took, f"{backend.seconds:.1f} s")


def _rows(backend: BackendParity) -> str:
    """The numbers that are not 0: `2,188 same (3 refused), 312 close by 0.0041`."""
    counts = {
        f"same ({backend.refused:,} refused)" if backend.refused else "same": backend.same,
        f"close by {backend.largest:.2g}": backend.close,
        "differ": backend.differ,
        "without an answer": backend.missing,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _bundle(backend: BackendParity, parity: Parity) -> str:
    """What the backend serves, if it reports that."""
    if backend.bundle is None:
        return ""
    if backend.bundle != parity.bundle:
        return f"{backend.bundle[:14]}…"
    other = f"same model, {'other' if backend.build else 'unknown'} build"
    return "same" if backend.build == parity.build else other


def _milliseconds(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


# --- HTML ------------------------------------------------------------------------------------------------------------

_STYLE = """
.parity { font: 15px/1.5 system-ui, sans-serif; color-scheme: light dark; }
.parity table { border-collapse: collapse; margin: 0.7em 0; font-variant-numeric: tabular-nums; }
.parity th, .parity td { padding: 0.3em 0.8em 0.3em 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #8884; }
.parity th { font-weight: 600; }
.parity code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.parity .good { color: #1a7f37; } .parity .bad { color: #cf222e; font-weight: 600; }
@media (prefers-color-scheme: dark) { .parity .good { color: #3fb950; } .parity .bad { color: #ff7b72; } }
.parity .scroll { overflow-x: auto; }
.parity .places td:nth-last-child(-n+2) { white-space: nowrap; }
"""


def page(result: Parity | LikewiseError) -> str:
    """A self-contained HTML document."""
    content = _failure(result) if isinstance(result, LikewiseError) else fragment(result)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>likewise verify</title>'
        "<style>:root { color-scheme: light dark; } body { margin: 2em auto; max-width: 75em; padding: 0 1em; }</style>"
        f"</head><body>{content}</body></html>\n"
    )


def fragment(parity: Parity) -> str:
    """The content of the page, as a notebook shows it."""
    outcome = "All backends agree" if parity.agrees else "Not all backends agree"
    parts = [
        f'<style>{_STYLE}</style><div class="parity">',
        f'<h2 class="{"good" if parity.agrees else "bad"}">{outcome}</h2><p>{escape(title(parity))}</p>',
        '<div class="scroll"><table class="places"><tr>',
        *(f"<th>{each}</th>" for each in HEADER),
        "</tr>",
        *(_row(cells, backend.agrees) for cells, backend in zip(table(parity), parity.places, strict=True)),
        "</table></div>",
        *(f"<p>{escape(each)}</p>" for each in notes(parity)),
        *map(_details, parity.places),
        "</div>",
    ]
    return "".join(parts)


def _failure(error: LikewiseError) -> str:
    text = f"<p>{escape(error.code)}: {escape(error.cause)}</p><p>What to do: {escape(error.remedy)}</p>"
    return f'<style>{_STYLE}</style><div class="parity"><h2 class="bad">Nothing was compared</h2>{text}</div>'


def _row(cells: tuple[str, ...], agrees: bool) -> str:
    name, verdict, *rest = map(escape, cells)
    colour = "good" if agrees else "bad"
    return f'<tr><th>{name}</th><td class="{colour}">{verdict}</td>{"".join(f"<td>{c}</td>" for c in rest)}</tr>'


def _details(backend: BackendParity) -> str:
    """Why a backend failed, and its differences."""
    text = ""
    if backend.error:
        text += f"<p>{escape(backend.error['code'])}: {escape(backend.error['cause'])}</p>"
        text += f"<p>{backend.missing:,} rows without an answer. What to do: {escape(backend.error['remedy'])}</p>"
    if shown := backend.differences[:SHOWN]:
        rows = [
            f"<tr><td>{each.row}</td>"
            + "".join(f"<td><code>{escape(cell or '')}</code></td>" for cell in _cells(each))
            + "</tr>"
            for each in shown
        ]
        heads = "".join(f"<th>{name}</th>" for name in ("row", "path", "this machine", "backend", "input", "step"))
        text += f'<div class="scroll"><table><tr>{heads}</tr>{"".join(rows)}</table></div>'
        if len(shown) < backend.differ:
            text += f"<p>and {backend.differ - len(shown):,} more</p>"
    return f"<h3>{escape(backend.where)}</h3>{text}" if text else ""


def _cells(difference: Difference) -> tuple[str | None, ...]:
    return difference.path, difference.here, difference.there, difference.given, difference.step


# --- JUnit -----------------------------------------------------------------------------------------------------------


def as_junit(result: Parity | LikewiseError) -> bytes:
    """A test suite with a test case per backend: a failure if it differs or is slow, an error if it failed.

    If nothing was compared, one case has the error.
    Source: the XML that Jenkins, GitLab and GitHub's actions read, https://llg.cubic.org/docs/junit/.
    """
    suite = ElementTree.Element("testsuite", name="likewise verify")
    if isinstance(result, LikewiseError):
        case = ElementTree.SubElement(suite, "testcase", classname="likewise", name="verify", time="0.000")
        message, text = result.cause, f"{result.cause}\n{result.remedy}"
        ElementTree.SubElement(case, "error", type=result.code, message=_xml(message)).text = _xml(text)
    else:
        _add_cases(suite, result)
    cases = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
    for name, path in cases.items():
        suite.set(name, str(len(suite.findall(path))))
    suite.set("time", f"{sum(float(case.get('time', 0)) for case in suite):.3f}")
    ElementTree.indent(suite)
    written: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written


def _add_cases(suite: ElementTree.Element, parity: Parity) -> None:
    for each in parity.places:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(parity.golden), name=_xml(each.where), time=f"{each.seconds:.3f}"
        )
        if not each.agrees:
            message = each.error["cause"] if each.error else each.proves(parity.confidence)
            kind = "error" if each.error else "failure"
            entry = ElementTree.SubElement(case, kind, type=each.verdict, message=_xml(message))
            entry.text = _xml("\n".join(f"{one}\n  input: {one.given}" for one in each.differences[:SHOWN]))


def _xml(text: str) -> str:
    """Without characters that XML does not have."""
    return "".join(char if char in "\t\n\r" or (char >= " " and char not in "\ufffe\uffff") else "�" for char in text)
