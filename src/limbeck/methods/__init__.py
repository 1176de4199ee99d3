"""The methods, one paper a file. Adding one: its file, a line here, a row in tests/catalogue.py."""

METHODS: dict[str, str] = {
    "none": "none: the student alone, on the labels",
    "kd": "kd: soft targets (Hinton et al., 2015)",
    "at": "at: attention maps of every stage (Zagoruyko and Komodakis, ICLR 2017)",
    "reviewkd": "reviewkd: knowledge review, attention fusion of levels (Chen et al., CVPR 2021)",
    "distpro": "distpro: many pathways under a searched process (Deng et al., ECCV 2022)",
}
"""Name -> `file: what it is`; the file holds a function of the method's name."""

SEARCHED = frozenset({"distpro"})
"""Methods whose weights their paper searches: `distill` searches first, unless it is given a process."""
