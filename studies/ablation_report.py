"""The page and the picture of the ablation."""

from pathlib import Path
from typing import Any

from allmodes.files.atomic import write_atomically
from allmodes.pictures.style import CORRECTED, RAW, new_figure, png, style

COLUMNS = {
    "steps": "{:.0f}", "seconds": "{:.0f}", "evaluations": "{:.2g}", "modes": "{:.0f}", "tv_ratio": "{:.2f}",
    "w2_ratio": "{:.2f}", "off": "{:.2%}", "forward_ess": "{:.3f}", "reverse_ess": "{:.3f}", "log_z_error": "{:+.3f}",
}  # fmt: skip
HEADS = (
    "steps",
    "s",
    "evaluations",
    "modes",
    "TV ratio",
    "W2 ratio",
    "off",
    "forward ESS",
    "reverse ESS",
    "log Z error",
)


def write(result: dict[str, Any], out: Path) -> None:
    """Write `ablation-table.md` and `ablation.png` beside the JSON."""
    lines = [
        f"`{result['command']}`, {result['machine']}, {result['seeds']} seeds: medians (of the TV ratio also "
        f"most to least). Raw draws, {result['draws']:,} of them; seconds with warm start and compilation.",
        "",
    ]
    for target, variants in result["table"].items():
        lines += [f"## {target}, {result['seconds'][target]:.0f} s of training at most", ""]
        lines += ["| variant | " + " | ".join(HEADS) + " |", "|---" * (len(HEADS) + 1) + "|"]
        for name, kinds in variants.items():
            for kind, figures in kinds.items():
                label = name if kind == "equal time" else f"{name}, {result['equal_evaluations']:.0e} evaluations"
                lines.append(f"| {label} | " + " | ".join(_cell(figures, c, f) for c, f in COLUMNS.items()) + " |")
        lines.append("")
    write_atomically(out / "ablation-table.md", lambda file: file.write("\n".join(lines)))
    _plot(result, out / "ablation.png")


def _cell(figures: dict, column: str, form: str) -> str:
    figure = figures.get(column)
    if figure is None:
        return ""
    text = form.format(figure["median"])
    if column == "tv_ratio":
        text += f" ({max(figure['all']):.1f} to {min(figure['all']):.1f})"
    return text


def _plot(result: dict[str, Any], path: Path) -> None:
    """TV ratio and forward ESS of each variant, a dot a seed; ESS of the weights per noise level
    below.
    """
    targets = [target for target, variants in result["table"].items() if "kde weights" in variants] or [
        *result["table"]
    ]
    with style():
        figure, axes = new_figure(8.4, 2, len(targets), width=11.0, squeeze=False, height_ratios=(2, 1))
        for column, target in enumerate(targets):
            variants = result["table"][target]
            names = list(variants)[::-1]
            for row, name in enumerate(names):
                for kind, colour in (("equal time", RAW), ("equal evaluations", CORRECTED)):
                    values = (variants[name].get(kind, {}).get("tv_ratio") or {}).get("all", [])
                    label = kind if row == len(names) - 2 else None
                    axes[0, column].plot(values, [row] * len(values), "o", color=colour, alpha=0.8, label=label)
            axes[0, column].axvline(1.0, color="0.5", lw=1)
            axes[0, column].set(yticks=range(len(names)), yticklabels=names, xscale="log", title=target)
            axes[0, column].set_xlabel("mode weights: total variation over its floor")
            axes[0, column].legend(loc="lower right")
            for name, colour in (("paper", RAW), ("kde weights", CORRECTED)):
                figures = variants.get(name, {}).get("equal time")
                if figures:
                    axes[1, column].semilogx(figures["sigma"], figures["level_ess"], color=colour, label=name)
            axes[1, column].set(ylim=(0, 1.05), xlabel="noise level over the target's spread")
            axes[1, column].set_ylabel("ESS of the loss's weights")
            axes[1, column].legend()
        write_atomically(path, lambda file: file.write(png(figure, dpi=110)), mode="wb")
