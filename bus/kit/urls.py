"""Addresses of servers, as they may be shown."""

import re


def without_secrets(url: str) -> str:
    """NATS URLs without passwords and tokens, to be shown."""
    return re.sub(r"//([^:@/,]+:)?[^@/,]+@", r"//\1***@", url)
