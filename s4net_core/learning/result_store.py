"""Results on disk under a hash of everything that they follow from, so that nothing is run twice."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s4net_core.evaluation.results import Result, result_from_dict
from s4net_core.files import write_result

log = logging.getLogger(__name__)

KEY_LENGTH = 16
"""Digits of the hash in a file name."""


class ResultStore:
    """One JSON file a run.

    Args:
        folder: made when the first result is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def once(self, follows_from: Mapping[str, Any], make: Callable[[], Sequence[Result]]) -> list[Result]:
        """What an earlier run has found, or what `make` finds.

        Args:
            follows_from: everything on which the results depend; written beside them.
            make: run when there is no file of such results, or a damaged one.

        Raises:
            S4NetError: the results cannot be written.
        """
        path = self._folder / f"{key_of(follows_from)}.json"
        if path.is_file():
            try:
                return [result_from_dict(found) for found in json.loads(path.read_text(encoding="utf-8"))["results"]]
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s is damaged (%s): it is made again", path, error)
        results = list(make())
        content = {"follows_from": follows_from, "results": [result.as_dict() for result in results]}
        write_result(path, json.dumps(content) + "\n")
        return results


def key_of(follows_from: Mapping[str, Any]) -> str:
    """Name for what follows from these values."""
    return hashlib.sha256(json.dumps(follows_from, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
