"""
A double of Cloudflare R2's rules for requests, in front of a real S3 server; it is not R2.

The double adds what R2 documents and no server that runs here enforces: the region, no checksums beyond
S3's first ones, and parts of one size; it notes which keys are written, since R2 takes one write per second
to each. Its error texts are its own, but for the one about parts. It is stricter than R2 says it is: any
header about checksums is refused, also the one a client asks for them with.
"""

import http.client
import re
from contextlib import AbstractContextManager
from urllib.parse import parse_qs, urlsplit

from fixtures.drill.s3 import S3
from tests.real.s3_double import Double, Refusal, running

REGIONS = frozenset({"auto", "us-east-1", ""})
SMALLEST_PART = 5 * 1024 * 1024
_REFUSED_HEADER = re.compile(r"x-amz-(sdk-checksum-algorithm|checksum-.*|trailer)")
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/(?P<region>[^/]*)/s3/")


class R2Rules(Double):
    """
    The double.

    Attributes:
        written: path of every object that was written in one piece.
    """

    def __init__(self, s3: S3) -> None:
        super().__init__(s3)
        self.parts: dict[str, dict[int, int]] = {}
        self.written: list[str] = []

    def verdict(self, method: str, path: str, headers: http.client.HTTPMessage) -> Refusal | None:
        """Return the error R2 has for a request."""
        named = [name for name in headers if _REFUSED_HEADER.fullmatch(name.lower())]
        if named or headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            return Refusal(code="NotImplemented", text=", ".join(named) or "streaming payload")
        scope = _SCOPE.search(headers.get("Authorization", ""))
        if scope and scope["region"] not in REGIONS:
            return Refusal(code="InvalidRegionName", text=scope["region"])
        address = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        upload = query.get("uploadId", "")
        if method == "PUT" and upload:
            size = int(headers.get("Content-Length", "0"))
            self.parts.setdefault(upload, {})[int(query["partNumber"])] = size
        elif method == "PUT":
            self.written.append(address.path)
        elif method == "POST" and upload:
            sizes = [size for _, size in sorted(self.parts.get(upload, {}).items())]
            if len(set(sizes[:-1])) > 1:
                return Refusal(code="InvalidPart", text="All non-trailing parts must have the same length.")
            if any(size < SMALLEST_PART for size in sizes[:-1]):
                return Refusal(code="EntityTooSmall", text="a part is too small")
        return None


def r2_rules(s3: S3) -> AbstractContextManager[R2Rules]:
    """Run the double in front of a server; ended behind it."""
    return running(R2Rules(s3))
