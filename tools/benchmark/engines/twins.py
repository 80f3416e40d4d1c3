"""cowfs with two copies of its metadata: what they cost."""

from benchmark.engines.cowfs import CowfsEngine


class TwinsEngine(CowfsEngine):
    name = "twins"
    copies = 2


ENGINE = TwinsEngine
