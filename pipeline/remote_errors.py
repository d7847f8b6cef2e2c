"""What a store's refusal means: whether to try again, what to tell, and nothing of what it said.

- A message names the place and the store's code; never a query string, a credential or the store's own words.
"""

from __future__ import annotations

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.errors import ExitCode, RunError

FAILURES = (OSError, aiohttp.ClientError, BotoCoreError, ClientError)
LOST_RACE = frozenset({"PreconditionFailed", "412"})
_RENEW = "the credentials have expired; renew them and run again"
_UNKNOWN = "the store does not know these credentials; check the profile or the environment they come from"
_DENIED = "the credentials may not do this; grant what docs/operating.md lists under Object stores"
_NONE = "no credentials were found; set [remote] profile, the store's own variables, or [remote] anonymous"
_WRONG = "the store does not take such a request; check the URL and [remote]"
_REFUSALS = {
    **dict.fromkeys(("ExpiredToken", "RequestExpired", "TokenRefreshRequired"), _RENEW),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ProfileNotFound"), _UNKNOWN),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "401", "403"), _DENIED),
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError"), _NONE),
    **dict.fromkeys(("InvalidRequest", "InvalidArgument", "MethodNotAllowed", "301", "400", "405"), _WRONG),
    "NoSuchBucket": "there is no such bucket; make it, or correct the URL and [remote] endpoint_url",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "NotImplemented": "the store lacks this; set [remote] put_if_absent = false if it is put-if-absent",
}


class RemoteError(RunError):
    """A remote place does not answer, or refuses; `exit_code` tells a wrong configuration from a failed run."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RemoteWarning(UserWarning):
    """A store cannot promise what others do."""


def code_of(error: BaseException) -> str:
    """Return the store's own code for an error, which stands in what caused it, or the name of its kind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClientError):
            return str(cause.response.get("Error", {}).get("Code", ""))
        if isinstance(cause, aiohttp.ClientResponseError):
            return str(cause.status)
        cause = cause.__cause__
    return "AccessDenied" if isinstance(error, PermissionError) else type(error).__name__


def refusal(place: str, code: str) -> RemoteError | None:
    """Return why it is of no use to try again, and what to do; None where it may be of use."""
    if code not in _REFUSALS:
        return None
    exit_code = ExitCode.FAILED if _REFUSALS[code] == _RENEW else ExitCode.USAGE
    return RemoteError(f"{place}: refused ({code}): {_REFUSALS[code]}", exit_code)
