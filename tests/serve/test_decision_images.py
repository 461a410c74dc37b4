"""Images of decisions: the same from the memory of the server as from its disk."""

from __future__ import annotations

import numpy as np

from blemish.serve.decision_images import DecisionImages
from blemish.serve.recent_images import RecentImages
from tests.conftest import Draw
from tests.serve.serving import Served, png


def test_overlay_and_map_are_the_same_after_a_restart(served: Served, draw: Draw) -> None:
    served.post(png(draw(3, dot=True)), name="dot.png")
    server = served.server
    (decision, *_) = server.history.page()
    assert decision.kept
    assert decision.regions
    after = DecisionImages(RecentImages(), max_pixels=10**6, kept=server.kept)
    now, later = server.images.find(decision), after.find(decision)
    assert now is not None
    assert later is not None
    assert now.frame.image == later.frame.image
    np.testing.assert_array_equal(now.map, later.map)
    assert server.images.files(decision) == after.files(decision)
    assert server.images.map_file(decision) == after.map_file(decision)
    recent = server.service.recent.get(decision.id)
    assert recent is not None
    assert (recent.map != now.map).any(), "the memory holds the map before it is rounded to its file"
