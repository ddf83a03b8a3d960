"""Everything that moe_bulk raises, as one tree; branch by what *you* should do next.

    MoeBulkError
    ├── ConfigError              a setting is wrong or missing: correct it            (exit 2)
    ├── SourceError              the input cannot be read at all                      (exit 2)
    │   └── InputRefused         too many of its rows would fail, says --check-first  (exit 2)
    ├── JournalError             the run folder cannot be read or written             (exit 3)
    │   ├── RunRefused           it holds another run: choose another, or --fresh     (exit 2)
    │   ├── RunHeld              another process is at work in it: wait               (exit 4)
    │   └── StateRefused         the state file is damaged or not ours: another one   (exit 2)
    └── RunStopped               sending stopped early; what is settled stays settled (exit 3)
        ├── CredentialsRejected  MoEngage refuses the key
        ├── DestinationWrong     this host or path is not the Track Device API
        ├── AccountRefused       MoEngage refuses one record after the other for a reason that is not in them
        ├── ServiceUnavailable   no acceptance for longer than --outage-limit
        ├── PaceLost             the Redis server that keeps the pace was away for as long, or refuses
        ├── TooManyFailures      --max-failures was reached
        └── Interrupted          somebody asked to stop                               (exit 128 + signal)

A device that is refused is no error: it is a `Result`.
"""

AGAIN = "run the same command again"
"""How to go on after a stop: what is settled stays settled."""


class MoeBulkError(Exception):
    """The root: catch this to catch everything that moe_bulk raises on purpose.

    `exit_code` is what the command line returns for it. `service_said` is what MoEngage said itself, where that is the
    reason: it may repeat a row's values, so it is no part of the message, and stays where rows do.
    """

    exit_code = 2
    service_said: str | None = None


class ConfigError(MoeBulkError):
    """A setting is wrong, missing or contradicts another one; nothing was sent."""


class SourceError(MoeBulkError):
    """The input cannot be read: missing, no permission, damaged, UTF-16, no usable header."""


class InputRefused(SourceError):
    """A check found more rows that would fail than is allowed; nothing was sent."""


class JournalError(MoeBulkError):
    """The run folder cannot be read or written: disk full, not ours, damaged."""

    exit_code = 3


class RunRefused(JournalError):
    """The run folder holds what this command must not touch, or cannot be made; nothing was sent."""

    exit_code = 2


class RunHeld(JournalError):
    """Another process is uploading into this run folder right now."""

    exit_code = 4


class StateRefused(JournalError):
    """The file that remembers what MoEngage has is damaged, foreign, or of another workspace; nothing more was sent."""

    exit_code = 2


class RunStopped(MoeBulkError):
    """Sending stopped early, orderly: results so far are written, the rest was not settled."""

    exit_code = 3

    def __init__(self, message: str = "", service_said: str | None = None) -> None:
        super().__init__(message)
        self.service_said = service_said


class CredentialsRejected(RunStopped):
    """MoEngage answered 401: the workspace id and the key do not belong together."""


class DestinationWrong(RunStopped):
    """A redirect, 404 or 405: the data center, host or path is not that of the Track Device API."""


class AccountRefused(RunStopped):
    """Three different records in a row were refused for a reason that lies in the account or on the way to it."""


class ServiceUnavailable(RunStopped):
    """Nothing was accepted for longer than the outage limit."""


class PaceLost(RunStopped):
    """The Redis server that keeps the pace of several hosts was away for longer than the outage limit, or refuses."""


class TooManyFailures(RunStopped):
    """More rows failed than `--max-failures` allows."""


class Interrupted(RunStopped):
    """A signal or the caller asked to stop.

    `signum` is the signal's number; the command line exits with 128 + signum.
    """

    def __init__(self, message: str, signum: int = 2) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum
