"""Formulas of the pages (`$..$`, `$$..$$`) as MathML, when the site is built: browsers show it
without scripts or fonts, so that nothing is fetched and pages can be read offline.

`pymdownx.arithmatex` marks the formulas; the forge that shows the raw pages knows the same marks.
"""

import re
from html import unescape

from latex2mathml.converter import convert

# The name of a function, unless it has an index or a bracket follows, is set apart.
FUNCTION = re.compile(r"(?<!<ms..>)<mi>(log|exp|sin|cos|det)</mi>(?!<mo stretchy|<mo fence)")
MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def mathml(marked: re.Match) -> str:
    """One marked formula; a command that the converter does not know is an error."""
    tag, tex = marked[1], unescape(marked[2]).strip()
    formula = convert(tex, display="block" if tag == "div" else "inline")
    if unknown := re.search(r"\\[A-Za-z]+", formula):
        raise ValueError(f"the formula {tex!r} has {unknown[0]}, which has no MathML: write it otherwise")
    formula = FUNCTION.sub(r'<mi>\1</mi><mspace width="0.17em"></mspace>', formula)
    return f'<{tag} class="formula">{formula}</{tag}>'


def on_page_content(html: str, **_) -> str:
    """Called by MkDocs with the HTML of each page."""
    return MARKED.sub(mathml, html)
