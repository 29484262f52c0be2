"""Whether a report's accuracies under attack are shown as a result."""


def failures(report: dict, hard: bool = True) -> list[dict]:
    """Return the hard checks that failed, or the soft ones."""
    return [check for check in report["checks"] if check["hard"] == hard and check["passed"] is False]


def withheld(report: dict) -> bool:
    """Say whether the accuracy under attack is not to be shown as a result."""
    return bool(failures(report)) and not report["forced"]
