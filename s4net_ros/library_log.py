"""What `s4net_core` logs goes to the log of the node that runs it: with level and stamp, to /rosout and ~/.ros/log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger


@contextmanager
def library_logs_to(logger: RcutilsLogger) -> Iterator[None]:
    """Block in which the records of `s4net_core` from INFO on go to a node's logger, from any thread, and nowhere else.

    Args:
        logger: of the node. Its own level decides what is shown.
    """
    library, handler = logging.getLogger("s4net_core"), _ToNode(logger)
    level, propagate = library.level, library.propagate
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    library.propagate = False  # the `s4net` command has a handler of its own, and would show everything twice
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)
        library.propagate = propagate


class _ToNode(logging.Handler):
    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            # A call each: rclpy raises when the same call comes with another level.
            if record.levelno >= logging.ERROR:
                self._logger.error(text)
            elif record.levelno >= logging.WARNING:
                self._logger.warning(text)
            else:
                self._logger.info(text)
        except Exception:
            self.handleError(record)  # whoever logs goes on
