"""
A double of S3's rules for temporary credentials, in front of a real S3 server; it is not AWS.

No server that runs here gives out session tokens of its own. The double knows those it issued, judges the
signature of a request that bears one, answers as S3 does for one that has expired or that it does not know,
and signs what it passes on anew, with the keys that can only read. A request without a token goes through
as it is. A token expires when it is told to, or at a request: the first one that a test names, so that it
expires in the middle of a copy or of a replay and never at another moment.
"""

import hashlib
import hmac
import http.client
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from fixtures.drill.s3 import S3, Identity
from tests.real.s3_double import Double, Refusal, running

TOKEN = "x-amz-security-token"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<scope>[^,]+), ?SignedHeaders=(?P<signed>[^,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(kw_only=True)
class Issued:
    """
    Temporary credentials.

    Attributes:
        key, secret, token: the three of them.
        expired: whether their time is over.
        ends_at: says of a request, by method and path, whether it is the first one behind their time.
    """

    key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expired: bool = False
    ends_at: Callable[[str, str], bool] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The SDK's own variables."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_SESSION_TOKEN": self.token,
        }

    def ini(self, profile: str = "default") -> str:
        """Lines of the SDK's credentials file."""
        return f"[{profile}]\n" + "".join(
            f"{name.lower()} = {value}\n" for name, value in self.variables.items()
        )


class SessionTokens(Double):
    """
    The double.

    Attributes:
        issued: by token.
    """

    def __init__(self, s3: S3) -> None:
        super().__init__(s3)
        self.issued: dict[str, Issued] = {}

    def issue(self, *, ends_at: Callable[[str, str], bool] | None = None) -> Issued:
        """Give out credentials that can read and list."""
        made = Issued(
            key=f"ASIA{secrets.token_hex(8).upper()}",
            secret=secrets.token_hex(20),
            token=secrets.token_hex(60),
            ends_at=ends_at,
        )
        self.issued[made.token] = made
        return made

    def verdict(self, method: str, path: str, headers: http.client.HTTPMessage) -> Refusal | None:
        """Return the error S3 has for a request with temporary credentials."""
        token = headers.get(TOKEN, "")
        found = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if found is None:
            return None
        if not token:
            known = any(each.key == found["key"] for each in self.issued.values())
            unknown = "The AWS Access Key Id you provided does not exist in our records."
            return (
                Refusal(code="InvalidAccessKeyId", text=unknown, status=HTTPStatus.FORBIDDEN)
                if known
                else None
            )
        issued = self.issued.get(token)
        if issued is None or issued.key != found["key"]:
            return Refusal(code="InvalidToken", text="The provided token is malformed or otherwise invalid.")
        if found["signature"] != _signature(
            issued.secret, found, method, path, dict(_lower(headers.items()))
        ):
            return Refusal(
                code="SignatureDoesNotMatch", status=HTTPStatus.FORBIDDEN,
                text="The request signature we calculated does not match the signature you provided.",
            )  # fmt: skip
        if issued.ends_at is not None and issued.ends_at(method, unquote(path)):
            issued.expired = True
        if issued.expired:
            # it repeats the token, as S3 does
            return Refusal(
                code="ExpiredToken",
                text="The provided token has expired.",
                more=f"<Token-0>{token}</Token-0>",
            )
        return None

    def passed_on(self, method: str, path: str, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Sign it anew where it bore a token."""
        kept = [(name, value) for name, value in headers if name.lower() != TOKEN]
        found = _AUTHORIZATION.fullmatch(dict(_lower(headers)).get("authorization", ""))
        if found is None or len(kept) == len(headers):
            return kept
        return [
            (name, self._signed(found, method, path, dict(_lower(kept))) if name.lower() == "authorization" else value)
            for name, value in kept
        ]  # fmt: skip

    def _signed(self, found: re.Match[str], method: str, path: str, headers: Mapping[str, str]) -> str:
        reader: Identity = self.s3.reader
        signed = ";".join(name for name in found["signed"].split(";") if name != TOKEN)
        unsigned = (
            f"AWS4-HMAC-SHA256 Credential={reader.key}/{found['scope']}, SignedHeaders={signed}, Signature="
        )
        again = _AUTHORIZATION.fullmatch(unsigned + "0" * 64)
        assert again is not None
        return unsigned + _signature(reader.secret, again, method, path, headers)


def _signature(secret: str, found: re.Match[str], method: str, path: str, headers: Mapping[str, str]) -> str:
    """Sign a request as "Signature Version 4" says (docs.aws.amazon.com, "Create a signed AWS API request")."""
    address = urlsplit(path)
    query = "&".join(
        sorted(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in parse_qsl(address.query, keep_blank_values=True)
        )
    )
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in found["signed"].split(";")]
    canonical = "\n".join(
        [method, address.path, query, *lines, "", found["signed"], headers["x-amz-content-sha256"]]
    )
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            headers["x-amz-date"],
            found["scope"],
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret}".encode()
    for word in [*found["scope"].split("/"), text]:
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return key.hex()


def _lower(headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name.lower(), value) for name, value in headers)


def session_tokens(s3: S3) -> AbstractContextManager[SessionTokens]:
    """Run the double in front of a server; ended behind it."""
    return running(SessionTokens(s3))
