"""The weights that serve, in memory: where learning goes back to after a refusal, and what predicts depth."""

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from s4net_core.models.build import SegmentationNetwork


class ServingWeights:
    """One network, which is the base model itself as long as that serves, and a copy of its own afterwards.

    Args:
        base: the base model, in evaluation mode; never modified.
    """

    def __init__(self, base: SegmentationNetwork) -> None:
        self._base = base
        self._network = base
        self._lock = threading.Lock()

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights, which serve from now on."""
        with self._lock:
            if self._network is self._base:
                self._network = copy.deepcopy(self._base)
            self._network.load_state_dict(weights)

    def take_base(self) -> None:
        """The base model serves again; the copy is given back."""
        with self._lock:
            self._network = self._base

    @property
    def current(self) -> SegmentationNetwork:
        """The network, for those who alone call `take` and `take_base`. To be read and not modified."""
        return self._network

    @contextmanager
    def network(self) -> Iterator[SegmentationNetwork]:
        """The network; its weights change only after the block has ended. To be read and not modified."""
        with self._lock:
            yield self._network
