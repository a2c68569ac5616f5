"""`python -m bench.peers_report` regenerates the table and the plot of `results/peers.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.record import RESULTS

OURS_COLOUR, THEIRS_COLOUR, INK = "#1f77d0", "#9aa4af", "#6f7a86"  # legible on white and on black
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("requests/s", "rps", ",.1f"),
    ("p50, ms", "p50_ms", ",.0f"),
    ("p99, ms", "p99_ms", ",.0f"),
    ("failed", "failed", ",.0f"),
    ("first response, s", "first_answer_s", ".1f"),
    ("peak memory, MB", "peak_rss_mb", ",.0f"),
    ("padding efficiency", "padding_efficiency", ".3f"),
)


def write(source: Path = RESULTS / "peers.json") -> list[Path]:
    """Write `peers.md` and `peers.svg` next to `source`."""
    document = json.loads(source.read_text(encoding="utf-8"))
    table, plot = source.with_suffix(".md"), source.with_suffix(".svg")
    table.write_text(markdown(document), encoding="utf-8")
    picture(document, plot)
    return [table, plot]


def markdown(document: Mapping[str, Any]) -> str:
    """A table with one contender per row, fastest first; errors of contenders that did not respond; versions."""
    results, compared = document["peers"], document["peers"]["setup"]["labels_compared"]
    heads = [title for title, _, _ in COLUMNS] + ["labels equal to Likewise's"]
    lines = [setup(document) + ".", "", _row(["", *heads]), _row(["---", *["---:"] * len(heads)])]
    for name, figures in ranked(document):
        cells = [format(figures[key], form) if key in figures else "" for _, key, form in COLUMNS]
        engine = results["engines"].get(name, "")
        lines.append(_row([_title(name, engine), *cells, f"{figures['labels_equal']:.0f} of {compared}"]))
    for name, error in results["errors"].items():
        lines += ["", f"{name} does not respond:", "", *(f"    {line}" for line in error.splitlines())]
    lines += ["", "Memory is the resident memory of all processes of a server; shared pages count in each."]
    lines += ["", *_versions(document)]
    return "\n".join(lines) + "\n"


def setup(document: Mapping[str, Any]) -> str:
    """The setup and the machine in one sentence."""
    settings, machine = document["peers"]["setup"], document["machine"]
    medians = f"medians of {settings['rounds']} x {settings['seconds']:g} s, {document['date']}"
    return (
        f"One distinct IMDB review per request, cut at 256 tokens; {settings['connections']} connections; "
        f"MiniLM-L6 classifier; {machine['CPU']}; {medians}"
    )


def ranked(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """Contenders by requests per second, fastest first."""
    return sorted(document["peers"]["medians"].items(), key=lambda one: -one[1]["rps"])


def picture(document: Mapping[str, Any], path: Path) -> None:
    """Draw two panels: requests per second, and p99 on a logarithmic axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    shown = ranked(document)[::-1]  # bars are drawn from bottom to top
    style: Any = {
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": INK,
        "svg.fonttype": "none",
    }
    with mpl.rc_context({**style, "svg.hashsalt": "peers", "font.family": "sans-serif"}):
        figure = Figure(figsize=(11, 1.6 + 0.42 * len(shown)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, shown, "rps", "requests per second (more is better)", "{:,.1f}".format)
        _panel(right, shown, "p99_ms", "p99, log scale (less is better)", _duration)
        for label, (name, _) in zip(left.get_yticklabels(), shown, strict=True):
            label.set_fontweight("bold" if _ours(name) else "normal")
        right.set_xscale("log")
        right.set_xlim(right.get_xlim()[0] / 1.5, right.get_xlim()[1] * 2)
        head, _, rest = setup(document).partition("; MiniLM")
        figure.suptitle(f"{head}\nMiniLM{rest}", fontsize=11)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _panel(
    axes: Any,
    shown: Sequence[tuple[str, Mapping[str, float]]],
    key: str,
    title: str,
    format_value: Callable[[float], str],
) -> None:
    names, values, places = [name for name, _ in shown], [figures[key] for _, figures in shown], range(len(shown))
    bars = axes.barh(
        places, values, color=[OURS_COLOUR if _ours(name) else THEIRS_COLOUR for name in names], height=0.7
    )
    axes.bar_label(bars, labels=[format_value(value) for value in values], fontsize=11, padding=4)
    axes.set_title(title, fontsize=11, loc="left")
    axes.margins(x=0.15)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(places, names)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.2f} s" if milliseconds >= 1e3 else f"{milliseconds:.0f} ms"


def _ours(name: str) -> bool:
    return name.startswith("likewise")


def _title(name: str, engine: str) -> str:
    return f"**`{name}`** ({engine})" if _ours(name) else name


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _versions(document: Mapping[str, Any]) -> list[str]:
    environments = {"Likewise": document["versions"], **document["peers"]["environments"]}
    return [
        f"- {name}: {', '.join(f'{package} {version}' for package, version in packages.items())}"
        for name, packages in environments.items()
    ]


if __name__ == "__main__":
    for written in write():
        print(written)
