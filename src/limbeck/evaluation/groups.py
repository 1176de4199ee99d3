"""What is measured of networks that learn together beside each one's own score, by the name it goes by everywhere."""

MEAN = "mean of members"
"""Mean score of those who learn together: of DML's peers, of FFSD's common students and not of its leader."""

ANY_RIGHT = "any member right"
"""Share of images that at least one of those whom the ensemble averages gets right, or of all learning networks where
there is no ensemble: FFSD's code prints it as an ensemble's accuracy."""

SIMILARITY = "cosine similarity"
"""How alike those who learn together are, `features` and `logits`: see `limbeck.evaluation.similarity`."""
