"""The look of the report: light and dark by the reader's setting, and in print.

Every pair of ink and ground that occurs has a contrast of 4.5 or more in both themes, and lines
have 3 or more (WCAG 2.2, 1.4.3 and 1.4.11): tests/pipeline/html/test_markup.py computes it. Plots
refer to the variables, so that the themes reach into them.
"""

from __future__ import annotations

CSS = """
:root {
  --ink: #1c2430; --faint: #c3cad4; --quiet: #566070; --paper: #ffffff; --panel: #f4f6f9;
  --accent: #1f5fa8; --warn: #b3261e; --warn-panel: #fdecea; --note-panel: #fff6dd;
  --cell: #5b97d9;
  --series-0: #1f5fa8; --series-1: #c25e00; --series-2: #1b7f4c; --series-3: #a0308f;
  --series-4: #8a6d00; --series-5: #b3261e; --series-6: #00808a; --series-7: #5a5f6b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ee; --faint: #434c5a; --quiet: #9aa5b4; --paper: #14181e; --panel: #1d232b;
    --accent: #6aaef5; --warn: #ff8a80; --warn-panel: #3a1d1b; --note-panel: #33290f;
    --cell: #2a5f9c;
    --series-0: #6aaef5; --series-1: #ffa552; --series-2: #62cf96; --series-3: #e48bd8;
    --series-4: #e0c14d; --series-5: #ff8a80; --series-6: #55cfd8; --series-7: #aeb5c2;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .15rem; }
a { color: var(--accent); }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--faint); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
ul.quiet { margin: .5rem 0; padding-left: 1.2rem; max-width: 48rem; }
.quiet, small { color: var(--quiet); font-size: .875rem; }
small { font-size: .8rem; white-space: nowrap; }
.note, .warning { padding: .6rem .9rem; border-radius: .4rem; background: var(--note-panel); }
.warning { background: var(--warn-panel); color: var(--warn); font-weight: 600; }
.warning ul { margin: .3rem 0 0; padding-left: 1.2rem; font-weight: 400; }
nav { margin: 1.25rem 0; padding: .6rem .9rem; background: var(--panel); border-radius: .4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 0; padding: 0;
  list-style: none; }
.scroll { overflow-x: auto; margin: .75rem 0; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); font-size: .875rem; padding: 0 .2rem .3rem; }
caption span { display: block; max-width: min(100%, calc(100vw - 2.5rem)); }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; vertical-align: top; }
thead th { color: var(--quiet); font-weight: 600; font-size: .85rem; vertical-align: bottom; }
th:first-child { text-align: left; font-weight: 600; padding-left: .2rem; }
tbody th { white-space: normal; overflow-wrap: break-word; min-width: 5rem;
  max-width: 22rem; }
td small { display: block; }
table.words td, table.words th { text-align: left; }
table.words td { white-space: normal; overflow-wrap: break-word; max-width: 34rem; }
table.words code { white-space: nowrap; }
table.headline td:nth-child(2) { font-size: 1.25rem; line-height: 1.2; font-weight: 650; }
tr:has(> th > b) > * { background: var(--panel); }
code, pre { font: .85em/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .7rem; background: var(--panel); border-radius: .4rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1.2rem;
  margin: .75rem 0; }
dt { color: var(--quiet); max-width: 16rem; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); overflow-wrap: anywhere; }
.plot { display: block; width: 100%; height: auto; }
.plot text { font-family: inherit !important; }
.scroll > .plot { min-width: 25rem; }
.pair, .trio { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.trio { grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.pair > *, .trio > *, .stack > * { min-width: 0; }
.stack { display: grid; gap: 1rem; max-width: 46rem; }
.narrow { max-width: 30rem; }
.key span { margin-right: 1.1rem; white-space: nowrap; }
.gauge { display: block; width: 9.5rem; height: 1.4rem; }
.errors { padding-left: 1.8rem; }
.errors > li { margin: 0 0 1.1rem; }
.errors p { margin: .1rem 0; }
audio { display: block; width: min(100%, 22rem); height: 2.4rem; margin: .3rem 0; }
@media (max-width: 30rem) {
  main { padding: 1.25rem .9rem 3rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .4rem; }
  th, td { padding: .3rem .5rem; }
  thead th { white-space: normal; }
}
@media print {
  @page { margin: 14mm; }
  html { font-size: 75%; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  nav, audio { display: none; }
  .gauge { width: 7rem; }
  h2, h3, summary, caption, thead { break-after: avoid; }
  table, tr, svg, .note, .warning, .errors > li, .pair > div, .trio > div { break-inside: avoid; }
  .pair { grid-template-columns: 1fr 1fr; }
  .trio { grid-template-columns: 1fr 1fr 1fr; }
  .scroll > .plot { min-width: 0; }
  .scroll { overflow: visible; }
  table { font-size: 8.5pt; }
  th, td { padding: .15rem .4rem; white-space: normal; }
  pre { white-space: pre-wrap; }
  details::details-content { display: block; content-visibility: visible; }
  * { print-color-adjust: exact; }
}
"""
