"""What the headers of a scrape ask for. Every expression here takes time linear in the length of the header."""

from __future__ import annotations

import re

# Offers read of a header; a client that lists more gets what the first ones ask for.
_MOST_OFFERS = 64
_OFFER = re.compile(
    r"[\w.+*-]+/[\w.+*-]+(;\s*(version=\d{1,3}(\.\d{1,3}){0,2}|(q|charset)=[\w.-]+|escaping=allow-utf-8)\s*)*",
    re.ASCII,
)
_OTHER_ESCAPING = re.compile(r";\s*escaping=(?!allow-utf-8\b)[\w-]*", re.ASCII)
_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)", re.IGNORECASE)


def acceptable(accept: str) -> str:
    """Keep of an Accept header the offers that are safe to choose by.

    prometheus_client compares versions as numbers and repeats them in its Content-Type. An offer with anything else in
    it, or refused with ``q=0``, is left out. No name of ours needs escaping; of the schemes only ``allow-utf-8``, which
    Prometheus 3 asks for, is passed on: with it prometheus_client renders OpenMetrics in half the time.
    """
    offers = (_OTHER_ESCAPING.sub("", offer).strip() for offer in accept.split(",", _MOST_OFFERS)[:_MOST_OFFERS])
    return ",".join(offer for offer in offers if _OFFER.fullmatch(offer) and not _REFUSED.search(offer))


def gzip_accepted(accept_encoding: str) -> bool:
    """Tell whether gzip is asked for and not refused with ``q=0`` (RFC 9110, section 12.5.3)."""
    codings = (coding.strip().lower() for coding in accept_encoding.split(",", _MOST_OFFERS)[:_MOST_OFFERS])
    return any(coding.partition(";")[0].rstrip() == "gzip" and not _REFUSED.search(coding) for coding in codings)
