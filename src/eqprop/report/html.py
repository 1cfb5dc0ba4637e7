"""Pages as HTML: one file, which loads nothing and runs no script but its own.

Every text is escaped. Should a text of a stranger's file still become a script, the page's own policy (CSP) refuses to
run it: it names the hash of the one script, and of the one style sheet, that belong to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from eqprop.report.blocks import Chart, Page, Picture
from eqprop.report.charts import svg, swatch


def render(page: Page, live: str = "") -> str:
    """The page as the text of an HTML file.

    Args:
        page: what it consists of.
        live: of a page that a server shows: the mark of its content, which the server tells when it has another; "" for
            a file.
    """
    style, script = own("style.css"), own("script.js")
    policy = f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}; "
    policy += f"{'connect-src ' + chr(39) + 'self' + chr(39) + '; ' if live else ''}base-uri 'none'; form-action 'none'"
    text: str = (
        environment()
        .from_string(own("page.html"))
        .render(page=page, live=live, policy=policy, style=Markup(style), script=Markup(script))
    )
    return text.strip() + "\n"


@cache
def environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"svg": svg, "swatch": swatch, "shown_height": shown_height}
    made.filters |= {"png": png, "listed": listed, "kind": lambda block: type(block).__name__, "legend": legend}
    return made


@cache
def own(name: str) -> str:
    """The content of a file of this package."""
    return (files("eqprop.report") / "templates" / name).read_text(encoding="utf-8").strip()


def digest(text: str) -> str:
    """A source of a policy: the hash of a script or a style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def png(picture: Picture) -> str:
    """The address of a picture that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def listed(values: Sequence[object]) -> str:
    """As JSON, for an attribute that the script reads."""
    return json.dumps(list(values))


def legend(chart: Chart) -> bool:
    """Whether the chart needs a legend."""
    return len(chart.lines) > 1


def shown_height(picture: Picture) -> int:
    """The height of a small picture, in pixels of the screen."""
    width, height = picture.size
    return max(24, min(96, height * max(1, 96 // max(width, height))))
