"""What an evaluation on an arm came to: a table, and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from agent.run.statistics import mcnemar, paired_difference, wilson
from agent.spec import plural
from tools.common.table import markdown, signed
from tools.trials.ledger import SUCCESS, Settings, Trial, by_policy

TIMES = ("reset_s", "episode_s", "verdict_s")
HEAD = ["checkpoint", "success", "95 %", "episodes", "with an intervention", "void", *TIMES]


def summary(settings: Settings, trials: Sequence[Trial]) -> dict[str, Any]:
    """JSON-able: the settings, each checkpoint's figures, and the differences of the others from the first."""
    found, order = by_policy(settings, trials), settings.order()
    voids = [[t for t in trials if not t.counts and order[t.episode] == k] for k in range(len(found))]
    return {
        "settings": {"episodes": settings.episodes, "seed": settings.seed, "order_seed": settings.order_seed}
        | {"verdict": settings.verdict, "stochastic": settings.stochastic, "env": settings.env},
        "checkpoints": [
            {**checkpoint, **_figures(list(mine.values()), void)}
            for checkpoint, mine, void in zip(settings.checkpoints, found, voids)
        ],
        "differences": [
            {"first": settings.names[k], "second": settings.names[0], **_difference(found[k], found[0])}
            for k in range(1, len(found))
        ],
        "trials": [{"checkpoint": settings.names[order[t.episode]], **vars(t)} for t in trials],
    }


def _figures(trials: list[Trial], voids: list[Trial]) -> dict[str, Any]:
    successes, helped = sum(t.succeeded for t in trials), [t for t in trials if t.by_hand]
    low, high = wilson(successes, len(trials)) if trials else (0.0, 1.0)
    return {
        "episodes": len(trials),
        "successes": successes,
        "success": successes / len(trials) if trials else None,
        "low": low,
        "high": high,
        "with_intervention": len(helped),
        "with_intervention_and_success": sum(t.result == SUCCESS for t in helped),
        "takeovers": sum(t.takeovers for t in trials),
        "steps_by_hand": sum(t.by_hand for t in trials),
        "void": dict(Counter(t.reason for t in voids)),
        **{key: fmean(getattr(t, key) for t in trials) if trials else None for key in TIMES},
    }


def _difference(one: dict[int, Trial], two: dict[int, Trial]) -> dict[str, Any]:
    """Of the blocks that both have."""
    both = [(one[block].succeeded, two[block].succeeded) for block in sorted(one.keys() & two.keys())]
    wins, losses = both.count((True, False)), both.count((False, True))
    low, high = paired_difference(wins, losses, len(both))
    difference = (wins - losses) / len(both) if both else None
    figures = {"pairs": len(both), "wins": wins, "losses": losses, "difference": difference}
    return {**figures, "low": low, "high": high, "p": mcnemar(wins, losses)}


def table(result: dict[str, Any]) -> str:
    """Markdown of a summary."""
    lines = [markdown(HEAD, [_row(each) for each in result["checkpoints"]]), ""]
    if result["differences"]:
        rows = [
            [
                f"{each['first']} less {each['second']}",
                str(each["pairs"]),
                signed(each["difference"]) if each["pairs"] else "",
                f"{signed(each['low'])} to {signed(each['high'])}",
                f"{each['wins']} / {each['losses']}",
                f"{each['p']:.3f}",
            ]
            for each in result["differences"]
        ]
        head = ["paired difference", "pairs", "difference", "95 %", "only the first / only the second succeeded", "p"]
        lines += [markdown(head, rows), ""]
    lines += [
        "Success: Wilson's interval. Difference: of blocks, whose episodes start alike; Bonett and Price's interval, "
        "McNemar's exact test, not corrected for several comparisons.",
        "An episode with an intervention counts as a failure, whatever its verdict. A void one is repeated, and counts "
        "as nothing.",
    ]
    for each in result["checkpoints"]:
        if each["with_intervention"]:
            lines.append(
                f"- {each['file']}: a person took over {plural(each['takeovers'], 'time')} for "
                f"{plural(each['steps_by_hand'], 'step')}; {each['with_intervention_and_success']} of "
                f"{plural(each['with_intervention'], 'such episode')} ended as a success"
            )
        lines += [f"- {each['file']}: {count} void: {reason}" for reason, count in each["void"].items()]
    return "\n".join(lines)


def _row(figures: dict[str, Any]) -> list[str]:
    def number(value: float | None, text: str) -> str:
        return "" if value is None else format(value, text)

    return [
        figures["file"],
        number(figures["success"], ".2f"),
        f"{figures['low']:.2f} to {figures['high']:.2f}",
        f"{figures['successes']} of {figures['episodes']}",
        str(figures["with_intervention"]),
        str(sum(figures["void"].values())),
        *(number(figures[key], ".1f") for key in TIMES),
    ]
