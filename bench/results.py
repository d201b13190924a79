"""From runs to numbers: medians with their spread, ratios, verdicts; and the comparison with a committed result.

A ratio is taken within a round, where both forwarders ran within a minute or two of each other, and only
then the median over the rounds: what the machine does slowly (frequency, neighbours) cancels out.

Every spread is [median, smallest, largest].
"""
import statistics

from workloads import AIMS, PEERS, WORKLOADS

NOISE_FLOOR = 0.02  # two builds of the same source differ by as much, through where code lies


def spread(values):
    return [statistics.median(values), min(values), max(values)]


def table_of(runs):
    """{workload: {round: {forwarder: metrics}}} of the runs that count."""
    table = {}
    for run in runs:
        if "failed" not in run:
            rounds = table.setdefault(run["workload"], {})
            rounds.setdefault(run["round"], {})[run["forwarder"]] = run["metrics"]
    return table


def summarise(runs):
    """{workload: {forwarder: {metric: spread}}}"""
    summary = {}
    for workload, rounds in table_of(runs).items():
        values = {}
        for by_forwarder in rounds.values():
            for forwarder, metrics in by_forwarder.items():
                for metric, value in metrics.items():
                    values.setdefault(forwarder, {}).setdefault(metric, []).append(value)
        summary[workload] = {forwarder: {metric: spread(found) for metric, found in metrics.items()}
                             for forwarder, metrics in values.items()}
    return summary


def ratios(runs):
    """{workload: {"sluice/haproxy": spread, ...}} in each workload's primary metric."""
    found = {}
    for workload, rounds in table_of(runs).items():
        primary, values = WORKLOADS[workload].primary, {}
        for by_forwarder in rounds.values():
            amounts = {name: metrics[primary] for name, metrics in by_forwarder.items()
                       if primary in metrics}
            for name, amount in amounts.items():
                for base, other in ((name, "bare"), ("sluice", name)):
                    if base != other and amounts.get(other) and base in amounts:
                        pair = values.setdefault(f"{base}/{other}", {})
                        pair[id(by_forwarder)] = amounts[base] / amounts[other]
        found[workload] = {pair: spread(list(by_round.values())) for pair, by_round in values.items()
                           if not pair.endswith("/direct") and not pair.startswith("direct/")}
    return found


def verdict(ratio, aim):
    """Met or missed when all rounds agree; a tie when the aim lies inside the spread."""
    _, low, high = ratio
    if high <= aim:
        return "met"
    return "missed" if low > aim else "tie"


def no_difference(ratio):
    return ratio[1] <= 1.0 <= ratio[2]


def judge(found):
    """[(verdict, workload, peer, ratio, aim)] for each aim that was tried."""
    judged = []
    for workload, by_peer in AIMS.items():
        for peer in PEERS:
            ratio = found.get(workload, {}).get(f"sluice/{peer}")
            if ratio and peer in by_peer:
                aim = by_peer[peer]
                judged.append((verdict(ratio, aim), workload, peer, ratio, aim))
    return judged


def worse(found, committed):
    """Whether a ratio has got worse by more than the noise of both.

    The found median must lie above all that was found when the result was committed, each round of
    now above the committed median, and the difference must be more than two builds may differ by.
    """
    return (found[0] > committed[2] and found[1] > committed[0]
            and found[0] > committed[0] * (1 + NOISE_FLOOR))


def compare(found, committed):
    """(lines, number of ratios that are worse) of sluice to bare and to haproxy."""
    lines, count = [], 0
    for workload, pairs in found.items():
        for pair in ("sluice/bare", "sluice/haproxy"):
            then, now = committed.get(workload, {}).get(pair), pairs.get(pair)
            if not then or not now:
                lines.append(f"  {workload:14} {pair:15} not compared: "
                             f"{'not in the committed result' if now else 'no run succeeded'}")
                count += not now
                continue
            bad = worse(now, then)
            count += bad
            lines.append(f"{'! ' if bad else '  '}{workload:14} {pair:15} committed {show(then)}  "
                         f"found {show(now)}  {'worse' if bad else 'ok'}")
    return lines, count


def show(values, digits=2):
    """median (smallest–largest)"""
    middle, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}–{high})"
