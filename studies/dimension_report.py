"""The page of the study of dimension."""

from pathlib import Path
from typing import Any

from allmodes.files.atomic import write_atomically

COLUMNS = {
    "evaluations": ("evaluations", "{:.2g}"), "seconds": ("s", "{:.0f}"), "ess": ("ESS", "{:.3f}"),
    "forward_ess": ("forward ESS", "{:.3f}"), "raw_ratio": ("TV ratio, raw", "{:.2f}"),
    "ratio": ("TV ratio, delivered", "{:.2f}"), "missed": ("modes missed", "{:.0f}"), "heavy": ("heavy mode", "{:.3f}"),
    "worst_balance": ("worst balance off by", "{:.3f}"), "log_z_error": ("log Z error", "{:+.3f}"),
    "log_z_std_error": ("its standard error", "{:.3f}"),
}  # fmt: skip


def write(result: dict[str, Any], out: Path) -> None:
    """Write `dimension-table.md`: a table for each case, a row for each method."""
    lines = [
        f"`{result['command']}`, {result['machine']}, {result['seeds']} seed(s): medians. {result['draws']:,} draws. "
        "Delivered are corrected draws where a method corrects. The plain methods got IWSM's evaluations.",
        "",
    ]
    for case, methods in result["table"].items():
        columns = [name for name in COLUMNS if any(_known(figures, name) for figures in methods.values())]
        lines += [f"**{case}**", "", "| method | " + " | ".join(COLUMNS[name][0] for name in columns) + " |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for method, figures in methods.items():
            cells = [
                COLUMNS[name][1].format(figures[name]["median"]) if _known(figures, name) else "" for name in columns
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    write_atomically(out / "dimension-table.md", lambda file: file.write("\n".join(lines)))


def _known(figures: dict[str, Any], name: str) -> bool:
    return isinstance(figures.get(name), dict)
