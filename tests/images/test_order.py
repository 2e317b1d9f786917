import numpy as np
import pytest

from fullrank.errors import UsageError
from fullrank.images.order import batches, epoch_order


def test_a_permutation_of_seed_and_epoch() -> None:
    order = epoch_order(1000, 5, 7)
    assert order.dtype == np.int64
    assert (np.sort(order) == np.arange(1000)).all()
    assert (order == epoch_order(1000, 5, 7)).all()
    assert (order != epoch_order(1000, 7, 5)).any()  # seed and epoch do not stand in for each other
    assert epoch_order(6, 0, 0).tolist() == [3, 2, 5, 4, 0, 1]  # a run from last year repeats


def test_batches_drop_or_keep_the_last() -> None:
    assert [len(batch) for batch in batches(np.arange(10), 4)] == [4, 4]
    assert [len(batch) for batch in batches(np.arange(10), 4, drop_last=False)] == [4, 4, 2]
    assert [len(batch) for batch in batches(np.arange(3), 4, drop_last=False)] == [3]


def test_no_batch_at_all_is_refused_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        batches(np.arange(300), 512)
    expected = "batch size 512 is larger than the 300 training images; use --batch-size 300 or fewer"
    assert str(refused.value) == expected
    with pytest.raises(UsageError, match="batch size 0 is not positive"):
        batches(np.arange(300), 0)
