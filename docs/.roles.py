"""A hook of mkdocs: cross-references of docstrings, written for Sphinx and for editors, as plain names."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>(~?)\.?([\w.]+)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """``:func:`~package.name``` as ``name``."""
    return _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)
