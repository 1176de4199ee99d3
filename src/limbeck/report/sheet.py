"""The page's style sheet: one column, light or dark as the reader has it, a table that becomes cards on a phone."""

SHEET = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --muted: #5c6570; --line: #dfe3e8; --soft: #f5f7f9; --accent: #0067a3;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "DejaVu Serif", serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e4e7eb; --muted: #9ba5b0; --line: #2b323a; --soft: #1b2026; --accent: #6cb6e8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 63rem; padding: 3.5rem 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 var(--sans); font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
h1, h2 { font-family: var(--serif); font-weight: 700; line-height: 1.15; letter-spacing: -.01em; text-wrap: balance; }
h1 { font-size: clamp(2rem, 6vw, 2.9rem); margin: .2rem 0 .6rem; }
h2 { font-size: 1.55rem; margin: 3.6rem 0 .5rem; padding-top: 1.1rem; border-top: 2px solid var(--ink); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p { margin: .5rem 0; max-width: 44rem; text-wrap: pretty; }
.mark { color: var(--accent); font-weight: 650; letter-spacing: .04em; margin: 0; }
.facts, .note, figcaption, footer { color: var(--muted); font-size: .9rem; }
.gains { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.75rem, 1fr)); gap: .75rem; list-style: none;
  padding: 0; margin: 1.6rem 0 .6rem; }
.gains li { padding: .8rem 1rem .75rem; background: var(--soft); border-radius: .5rem;
  border-top: 3px solid var(--line); }
.gains li.own { border-top-color: var(--accent); }
.gains b { display: block; font: 700 1.75rem/1.2 var(--serif); }
.gains span { display: block; font-size: .88rem; }
.gains small { color: var(--muted); font-size: .82rem; }
figure { margin: 1.4rem 0 1.8rem; }
figcaption { margin-top: .5rem; max-width: 44rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: var(--sans) !important; white-space: pre; }
.narrow { display: none; }
table { width: 100%; border-collapse: collapse; margin: 1.2rem 0 .6rem; font-size: .92rem; }
th, td { padding: .55rem .55rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 500; font-size: .85rem; border-bottom-color: var(--muted); }
th:first-child, td:first-child { padding-left: 0; }
td:first-child { font-weight: 600; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
td.score { font-weight: 650; }
details { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .7rem 0; }
summary::marker { color: var(--accent); }
summary:hover { color: var(--accent); }
summary b { margin-right: .6rem; }
summary span { color: var(--muted); font-size: .9rem; }
details > div { padding: 0 0 1.4rem 1.1rem; }
details details { border: 0; }
details details summary { padding: .3rem 0; font-size: .94rem; }
details details > div { padding-bottom: .6rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1.2rem; margin: .4rem 0;
  font-size: .9rem; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { font: .82rem/1.5 var(--mono); background: var(--soft); border-radius: .4rem; margin: .4rem 0;
  padding: .75rem .9rem; overflow-x: auto; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (max-width: 46rem) {
  body { padding: 1.8rem 1.1rem 3rem; }
  .wide { display: none; }
  .narrow { display: block; }
  details > div { padding-left: .2rem; }
  table, tbody { display: block; }
  thead, td:empty { display: none; }
  tr { display: flex; flex-wrap: wrap; column-gap: 1rem; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  tr::after { content: ""; flex-basis: 100%; order: 1; }
  td { order: 2; padding: 0; border: 0; color: var(--muted); font-size: .88rem; white-space: normal; }
  td:first-child, td.score { order: 0; color: var(--ink); font-size: 1rem; }
  td:first-child { flex: 1 1 50%; }
  td.number:not(.score)::before { content: attr(data-label) " "; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .45rem; }
}
@media print {
  :root { --paper: #ffffff; --ink: #1f2328; --muted: #5c6570; --line: #dfe3e8; --soft: #f5f7f9; --accent: #0067a3;
    color-scheme: light; }
  @page { margin: 15mm; }
  html { font-size: 11px; }
  body { padding: 0; max-width: none; }
  h2 { margin-top: 2rem; }
  h2, h3, summary { break-after: avoid; }
  figure, tr, .gains li, details:not([open]) { break-inside: avoid; }
  pre { white-space: pre-wrap; }
}
"""
