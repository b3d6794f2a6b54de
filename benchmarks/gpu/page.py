"""The page of the results: what holds, what was promised and found, and what was not run.

Plain Python makes it, since a machine that is lent for minutes may lack Jinja2; the style sheet is
that of the other pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.gpu.parts import Part
from benchmarks.gpu.record import ROOT

STYLE = ROOT / "pipeline" / "html" / "templates" / "style.css"
SIGNS = {"<=": "≤", ">=": "≥"}
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
.no {{ color: var(--warn); font-weight: 600; }}
table.bounds td:last-child {{ text-align: left; }}
table.words thead th {{ white-space: normal; }}
@media (max-width: 30rem) {{ .bounds td {{ padding: .3rem .4rem; }} }}
table.bounds tbody th:not(:has(b)), table.words tbody th {{ font-weight: 400; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(content: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """HTML of a file of results.

    Args:
        content: The file (`benchmarks.gpu.record`).
        parts: All parts that there are.
    """
    done, machine = content["parts"], content["machine"]
    name = ", ".join(machine["gpus"]) or f"no GPU ({machine['processor']})"
    body = [f"<h1>{escape(name)}</h1>", _machine(content), *_summary(content, parts)]
    failed = {key: each for key, each in done.items() if each["state"] == "failed"}
    body += _section("Failed", [_failure(key, each) for key, each in failed.items()])
    bounds = [(each["title"], goal) for each in done.values() for goal in each.get("goals", [])]
    body += _section("Goals", [_bounds("Goal", bounds, "met", "missed")] if bounds else [])
    checks = [(each["title"], check) for each in done.values() for check in each.get("checks", [])]
    words = "Errors are relative to what the CPU computes in float32."
    table = [f'<p class="quiet">{words}</p>', _bounds("Check", checks, "holds", "does not hold")]
    body += _section("Checks", table if checks else [])
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}  # parts with the same figures
    for each in done.values():
        if each.get("figures"):
            alike.setdefault(tuple(each["figures"]), []).append(each)
    body += _section("Figures", [_figures(each) for each in alike.values()])
    absent = [(key, each["message"]) for key, each in done.items() if each["state"] == "skipped"]
    absent += [(part.name, "not run yet") for part in parts if part.name not in done]
    rows = (f"<li>{escape(key)}: {escape(why)}</li>" for key, why in absent)
    body += _section("Not proven here", [f"<ul>{''.join(rows)}</ul>"] if absent else [])
    style = STYLE.read_text(encoding="utf-8")
    return TEMPLATE.format(title=escape(f"heronry on {name}"), style=style, body="\n".join(body))


def _machine(content: Mapping[str, Any]) -> str:
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    memory = f"shared memory {machine.get('shared_memory', 'unknown')}"
    facts = [content["date"], machine["processor"], memory, f"Python {machine['python']}", versions]
    facts += [f"CUDA {machine['cuda']}"] if machine["cuda"] else []
    facts += [f"commit {content['commit'] or 'unknown'}", f"sources {content['sources']}"]
    return (
        f'<p class="quiet">{escape("; ".join(facts))}. Weights: {escape(content["weights"])}.</p>'
    )


def _summary(content: Mapping[str, Any], parts: Sequence[Part]) -> Iterable[str]:
    done = content["parts"].values()
    states = [each["state"] for each in done]
    goals = [goal["holds"] for each in done for goal in each.get("goals", [])]
    checks = [check["holds"] for each in done for check in each.get("checks", [])]
    seconds = sum(each["seconds"] for each in done)
    passed, failed, skipped = (states.count(word) for word in ("passed", "failed", "skipped"))
    yield (
        f"<p><b>{passed} of {len(parts)} parts passed</b> (failed: {failed}, not applicable here: "
        f"{skipped}, not run: {len(parts) - len(states)}); {sum(checks)} of {len(checks)} checks "
        f"hold, {sum(goals)} of {len(goals)} goals are met. It took {seconds:.0f} s.</p>"
    )


def _section(title: str, content: Sequence[str]) -> list[str]:
    return [f"<h2>{title}</h2>", *content] if content else []


def _failure(name: str, each: Mapping[str, Any]) -> str:
    missed = [check["what"] for check in each.get("checks", []) if not check["holds"]]
    message = each.get("message") or f"out of tolerance: {'; '.join(missed)}"
    log = "\n".join(each.get("log", []))
    more = f"<pre>{escape(log)}</pre>" if log else ""
    return f'<div class="warning">{escape(name)}: {escape(message)}</div>{more}'


def _bounds(heading: str, rows: Sequence[tuple[str, Mapping[str, Any]]], yes: str, no: str) -> str:
    lines, last = [], ""
    for title, bound in rows:
        if title != last:
            lines.append(f'<tr><th colspan="4"><b>{escape(title)}</b></th></tr>')
        last = title
        limit = f"{SIGNS[bound['sense']]} {bound['limit']:g}"
        verdict = yes if bound["holds"] else f'<span class="no">{no}</span>'
        cells = f"<td>{bound['found']:g}</td><td>{limit}</td><td>{verdict}</td>"
        lines.append(f"<tr><th>{escape(bound['what'])}</th>{cells}</tr>")
    head = f"<tr><th>{heading}</th><th>found</th><th>bound</th><th></th></tr>"
    return _table(f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody>", "bounds")


def _figures(parts: Sequence[Mapping[str, Any]]) -> str:
    """Figures of one part, or in columns those of parts that have the same."""
    rows = [
        f"<tr><th>{escape(_plain(name))}</th>"
        + "".join(f"<td>{escape(_value(part['figures'][name]))}</td>" for part in parts)
        + "</tr>"
        for name in parts[0]["figures"]
    ]
    if len(parts) == 1:
        table = _table(f"<tbody>{''.join(rows)}</tbody>", "words")
        return f"<h3>{escape(parts[0]['title'])}</h3>{table}"
    heads = "".join(f"<th>{escape(part['title'])}</th>" for part in parts)
    head = f"<thead><tr><th></th>{heads}</tr></thead>"
    return _table(f"{head}<tbody>{''.join(rows)}</tbody>", "words")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        if set(value) == {"median", "range"}:
            low, high = value["range"]
            return f"{value['median']:g} ({low:g} to {high:g})"
        return ", ".join(f"{_plain(name)} {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _plain(name: str) -> str:
    """The name of a figure in words."""
    return name.replace("_", " ").replace("gib", "GiB").replace("tflops", "TFLOP/s")


def _table(content: str, kind: str) -> str:
    return f'<div class="scroll"><table class="{kind}">{content}</table></div>'
