"""The methods, one paper a file. Adding one: its file, a line here, a row in tests/catalogue.py."""

METHODS: dict[str, str] = {
    "none": "none: the student alone, on the labels",
    "kd": "kd: soft targets (Hinton et al., 2015)",
    "at": "at: attention maps of every stage (Zagoruyko and Komodakis, ICLR 2017)",
    "reviewkd": "reviewkd: knowledge review, attention fusion of levels (Chen et al., CVPR 2021)",
    "fitnet": "fitnet: a hint at one layer, through a regressor (Romero et al., ICLR 2015)",
    "nst": "nst: how channels spread over places (Huang and Wang, 2017)",
    "vid": "vid: predicted features, a variance for each channel (Ahn et al., CVPR 2019)",
    "ofd": "ofd: features before the activation, blind where it hides them (Heo et al., ICCV 2019)",
    "london": "london: OFD, and how much each stage stretches features (Shang et al., ICCV 2021)",
    "ab": "ab: which neurons are on, before the task is learned (Heo et al., AAAI 2019)",
    "ft": "ft: factors of the last map, by a paraphraser and a translator (Kim et al., NeurIPS 2018)",
    "fsp": "fsp: flow from each stage to the next, before the task is learned (Yim et al., CVPR 2017)",
    "kdsvd": "kdsvd: main directions from each stage to the next (Lee et al., ECCV 2018)",
    "distpro": "distpro: many pathways under a searched process (Deng et al., ECCV 2022)",
    "takd": "takd: a chain of assistants between teacher and student (Mirzadeh et al., AAAI 2020)",
    "dgkd": "dgkd: the teacher and all assistants together (Son et al., ICCV 2021)",
    "eskd": "eskd: KD that stops early (Cho and Hariharan, ICCV 2019)",
    "rco": "rco: along the teacher's own checkpoints (Jin et al., ICCV 2019)",
    "ban": "ban: generations of one architecture (Furlanello et al., ICML 2018)",
    "l2tww": "l2tww: meta-networks weigh layers and channels (Jang et al., ICML 2019)",
    "slkd": "slkd: self-learning teachers beside the student (Liu, Li and Cheng, 2023)",
    "ffsd": "ffsd: students learn together, fused they teach a leader (Li et al., TNNLS 2022)",
}
"""Name -> `file: what it is`; the file holds a function of the method's name."""

SEARCHED = frozenset({"distpro"})
"""Methods whose weights their paper searches: `distill` searches first, unless it is given a process."""
