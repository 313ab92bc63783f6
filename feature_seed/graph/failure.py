"""What a failed run says to the people who have to act on it, in one line: the same in alerts and in the terminal."""

import re

import dagster as dg

from feature_seed.graph.dagster_private import ErrorInfo, run_error

# How our errors begin where Dagster writes them down: their text says it all.
_OURS = re.compile(r"feature_seed\.errors\.\w+: ")


def cause(error: ErrorInfo) -> str:
    """The words of our error, or the first line of a library's, rather than those of Dagster's wrapper."""
    while error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    text = error.message.strip()
    if ours := _OURS.match(text):
        return " ".join(text[ours.end() :].split())
    return text.partition("\n")[0]


def is_ours(error: ErrorInfo) -> bool:
    """Whether a text of ours is among the causes, so that no stack trace is needed to understand it."""
    return bool(_OURS.match(error.message)) or bool(error.cause and is_ours(error.cause))


def run_cause(context: dg.RunFailureSensorContext) -> str:
    """What the first step that failed says; of a run that did not come to its steps, what kept it from them."""
    for event in context.get_step_failure_events():
        if error := event.step_failure_data.error:
            return cause(error)
    error = run_error(context.failure_event)
    return cause(error) if error else (context.failure_event.message or "no message").partition("\n")[0]
