"""Shims for other packages."""

import threading

import pytest
import torch

from sklearn_dialpref._compat import plain_attention

GPU = torch.device("cuda")


@pytest.fixture(params=[True, False])
def switch(request):
    """Torch's switch for cuDNN's attention, as the user left it."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_cudnn_attention_is_off_within_and_as_before_after(switch):
    on = torch.backends.cuda.cudnn_sdp_enabled
    with plain_attention(GPU):
        assert not on()
        with plain_attention(GPU):
            assert not on()
        assert not on()
    assert on() == switch
    with pytest.raises(ZeroDivisionError), plain_attention(GPU):
        1 / 0  # noqa: B018
    assert on() == switch
    with plain_attention(torch.device("cpu")):
        assert on() == switch


def test_of_threads_the_last_puts_it_back(switch):
    on = torch.backends.cuda.cudnn_sdp_enabled
    entered, leave = threading.Event(), threading.Event()

    def other():
        with plain_attention(GPU):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with plain_attention(GPU):
        thread.start()
        assert entered.wait(10)
    assert not on()
    leave.set()
    thread.join(10)
    assert on() == switch
