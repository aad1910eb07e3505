"""The weights that serve, in memory: learning returns to them after a refusal, and they predict depth."""

import copy
import threading
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from s4net_core.learning.judge import KnownLabels
from s4net_core.models.build import SegmentationNetwork


class ServingWeights:
    """The network that serves: the base model itself at first, a copy of it with new weights later.

    Args:
        base: the base model, in evaluation mode; never modified.
    """

    def __init__(self, base: SegmentationNetwork) -> None:
        self._base = base
        self._network = base
        self._lock = threading.Lock()
        self.labels: KnownLabels = {}
        """What these weights say of keyframes, for those who alone call `take` and `take_base`."""

    def take(self, weights: Mapping[str, Tensor], labels: KnownLabels | None = None) -> None:
        """Copy `weights`; the copy serves from now on. `labels` is what it is known to say of keyframes."""
        with self._lock:
            self.labels = labels or {}
            if self._network is self._base:
                self._network = copy.deepcopy(self._base)
            self._network.load_state_dict(weights)

    def take_base(self) -> None:
        """The base model serves again; the memory of the copy is freed."""
        with self._lock:
            self.labels = {}
            self._network = self._base

    def forget_labels(self, *, but: Container[int]) -> None:
        """Forget what they say of keyframes, but of those with these ids: the memory must not grow with the room."""
        self.labels = {id: label for id, label in self.labels.items() if id in but}

    @property
    def current(self) -> SegmentationNetwork:
        """The network, for those who alone call `take` and `take_base`. To be read and not modified."""
        return self._network

    @contextmanager
    def network(self) -> Iterator[SegmentationNetwork]:
        """The network, to be read only; its weights do not change while the block runs."""
        with self._lock:
            yield self._network
