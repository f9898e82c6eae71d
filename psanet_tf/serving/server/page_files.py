"""The files of the browser page, and what they may do in a browser."""

import html
from importlib import resources
from urllib.parse import quote

_BESIDE = (
    "attention.js",
    "main.js",
    "page.css",
    "page.js",
    "picture.js",
    "refusal.js",
    "sent_picture.js",
    "served.js",
    "server.js",
)
NAMES = {"/": "index.html", **{f"/{name}": name for name in _BESIDE}}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self' http: https:",  # also models on other servers
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def read(path: str, model: str) -> tuple[str, str]:
    """(text, content type) of one of `NAMES`, made for a model of that name."""
    name = NAMES[path]
    text = (resources.files("psanet_tf.serving.server") / "page" / name).read_text(encoding="utf-8")
    text = text.replace('data-model=""', f'data-model="{html.escape(quote(model))}"')
    return text, _TYPES[name.rsplit(".")[-1]]
