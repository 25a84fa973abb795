"""How to cite what a page was made with."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Reference(NamedTuple):
    """A work in words, and as BibTeX."""

    words: str
    bibtex: str


PAPER = Reference(
    "C. Wang, X. Zhang, K. Cui, W. Zhao, Y. Guan, T. Yu: Importance Weighted Score Matching for Diffusion Samplers "
    "with Enhanced Mode Coverage. arXiv:2505.19431 (2025).",
    """@article{wang2025iwsm,
  title   = {Importance Weighted Score Matching for Diffusion Samplers with Enhanced Mode Coverage},
  author  = {Wang, Chenguang and Zhang, Xiaoyu and Cui, Kaiyuan and Zhao, Weichen and Guan, Yongtao and Yu, Tianshu},
  journal = {arXiv preprint arXiv:2505.19431},
  year    = {2025},
  url     = {https://arxiv.org/abs/2505.19431}
}""",
)


def software(version: str) -> Reference:
    """The library itself, in the version that a page was made with, where that is known."""
    of = f", version {version}" if version else ""
    field = f"\n  version = {{{version}}}," if version else ""
    return Reference(
        f"The allmodes developers: allmodes{of}. https://github.com/allmodes/allmodes.",
        f"""@software{{allmodes,
  title   = {{allmodes}},
  author  = {{{{The allmodes developers}}}},{field}
  url     = {{https://github.com/allmodes/allmodes}}
}}""",
    )


def references(result: Mapping[str, Any]) -> list[Reference]:
    """What a run rests on: the paper, where the method is the paper's, and the software."""
    version = (result.get("versions") or {}).get("allmodes", "")
    is_of_paper = str(result.get("method")).startswith("iwsm")
    return [*([PAPER] if is_of_paper else []), software(str(version))]
