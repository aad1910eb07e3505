"""Libraries that compute the same scores. Each of pytest's workers collects all files, but few need these libraries."""

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def sklearn_metrics() -> ModuleType:
    """Scores of scikit-learn."""
    from sklearn import metrics

    return metrics


@pytest.fixture(scope="session")
def torchmetrics() -> ModuleType:
    """Functions of torchmetrics."""
    import torchmetrics.functional.segmentation  # its parent does not import it

    return torchmetrics.functional
