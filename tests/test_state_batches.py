"""Dialogue states by the provider's batch interface."""

import pytest
from fake_batches import FakeBatches
from test_state_annotator import CHATS, SLOTS, STATES, StateLLM

from sklearn_dialpref import DialogueStateAnnotator
from sklearn_dialpref.annotation import batches


class StateBatches(StateLLM, FakeBatches):
    pass


@pytest.mark.parametrize("size", [1, "dialogue"])
def test_states_in_batches(size, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "POLL_SECONDS", 0.01)
    with StateBatches() as server:
        teacher = DialogueStateAnnotator(
            SLOTS, "tiny", base_url=server.base_url, cache=tmp_path / "c", mode="batch",
            utterances_per_call=size, n_prompts=2,
        ).fit(CHATS)  # fmt: skip
        states = teacher.predict(CHATS)
        assert all(column.tolist() == STATES for column in states.T)
        assert len(server.batches) > 0 and "in batches" in teacher.card()
        teacher.set_params(mode="live").predict(CHATS)
        assert teacher.usage_["cached"] == 12
