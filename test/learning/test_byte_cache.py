"""Memory of values that are kept: it is counted as they come and go, and never anew over all of them."""

from s4net_core.learning.byte_cache import BYTES_PER_MEGABYTE, ByteCache


def test_each_value_is_measured_when_it_comes_and_when_it_goes():
    measured = []
    cache = ByteCache(1, lambda value: measured.append(value) or BYTES_PER_MEGABYTE // 4)
    for value in range(20):
        cache.keep(value, value)
    assert cache.nbytes == BYTES_PER_MEGABYTE
    assert sorted(measured) == sorted([*range(20), *range(16)])


def test_a_value_in_the_place_of_another_counts_once_and_as_used_now():
    cache = ByteCache(1, len)
    cache.keep("old", b"1" * 600_000)
    cache.keep("new", b"2" * 300_000)
    cache.keep("old", b"3" * 500_000)
    assert cache.nbytes == 800_000
    cache.keep("newest", b"4" * 300_000)  # "new" goes, because "old" was kept again after it
    assert cache.nbytes == 800_000
    assert cache.used("new") is None
    assert cache.used("old") == b"3" * 500_000
    cache.clear()
    assert (cache.nbytes, cache.used("old")) == (0, None)
