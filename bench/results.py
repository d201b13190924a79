"""From runs to numbers: medians with their spread, ratios, verdicts; and the comparison with a committed result.

A ratio is taken within a round, where both forwarders ran within a minute or two of each other, and only
then the median over the rounds: what the machine does slowly (frequency, neighbours) cancels out.

Every spread is [median, low, high, smallest, largest, count of values]. From low to high is the interval that
verdicts rest on. It goes from the second smallest to the second largest value if there are 7 or more: so one
round that was disturbed decides nothing. For nine independent rounds that is a 96 % interval of the median
(for seven 88 %). Of fewer values it is all of them (for five 94 %, for three only 75 %).

Without the values of all rounds but one there is no verdict: which rounds fail is not left to chance.
"""
import statistics

from workloads import AIMS, BULK_AIM, FEW_ROUNDS, PEERS, WORKLOADS

TRIM_FROM = 7  # values; of fewer the interval would be too short to mean much
# Of the forwarder's processor, had by others. The kernel's own threads and interrupts, charged to nobody, had up to 7 %
# of it on a machine that did nothing else (80 windows on 2026-11-23).
DISTURBED = 0.1
NOISE_FLOOR = 0.02  # two builds of the same source differ by as much, through where code lies


def spread(values):
    ranked = sorted(values)
    cut = 1 if len(ranked) >= TRIM_FROM else 0
    return [statistics.median(ranked), ranked[cut], ranked[-1 - cut], ranked[0], ranked[-1], len(ranked)]


def needed(workload, rounds):
    """How many values a verdict needs."""
    return max(1, (min(rounds, FEW_ROUNDS) if WORKLOADS[workload].few_rounds else rounds) - 1)


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
    return _ratios(table_of(runs), lambda workload: workload.primary)


def bulk_ratios(runs):
    """The same of the rate of bulk, where something else is the primary metric and bulk runs beside it."""
    return _ratios({name: rounds for name, rounds in table_of(runs).items()
                    if WORKLOADS[name].kind == "mixed"}, lambda workload: "rate")


def _ratios(table, metric_of):
    found = {}
    for workload, rounds in table.items():
        primary, values = metric_of(WORKLOADS[workload]), {}
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


def verdict(ratio, aim, count_needed):
    """Met or missed when the interval lies on one side of the aim; a tie when the aim lies inside it."""
    low, high, count = ratio[1], ratio[2], ratio[5]
    if count < count_needed:
        return "none"
    if high <= aim:
        return "met"
    return "missed" if low > aim else "tie"


def bulk_verdict(ratio, count_needed):
    """The same for the rate of bulk, which must be as high as BULK_AIM at least."""
    if ratio is None:
        return "none"
    return verdict([-ratio[0], -ratio[2], -ratio[1], -ratio[4], -ratio[3], ratio[5]], -BULK_AIM,
                   count_needed)


def side(ratio, aim):
    """Where a tie leans."""
    return "below" if ratio[0] < aim else "above" if ratio[0] > aim else "at"


def decide(data, workload, peer):
    """(verdict, ratio, aim, ratio of bulk rates or None), or None if it was not tried or has no aim.

    Where bulk runs beside, short latencies are no merit if they come from little bulk: so the worse of the
    two verdicts counts.
    """
    ratio = data["ratios"].get(workload, {}).get(f"sluice/{peer}")
    aim = AIMS.get(workload, {}).get(peer)
    if not ratio or aim is None:
        return None
    enough = needed(workload, data["rounds"])
    found, bulk = verdict(ratio, aim, enough), None
    if WORKLOADS[workload].kind == "mixed":
        bulk = data["bulk_ratios"].get(workload, {}).get(f"sluice/{peer}")
        found = max(found, bulk_verdict(bulk, enough), key=("met", "tie", "missed", "none").index)
    return found, ratio, aim, bulk


def no_difference(ratio):
    return ratio[1] <= 1.0 <= ratio[2]


def judge(data):
    """[(verdict, workload, peer, ratio, aim, ratio of bulk rates)] for each aim that was tried."""
    return [(found[0], workload, peer, *found[1:]) for workload in AIMS for peer in PEERS
            if (found := decide(data, workload, peer))]


def worse(found, committed):
    """Whether a ratio has got worse by more than the noise of both.

    The found median must lie above the committed interval, the whole found interval above the committed
    median, and the difference must be more than two builds may differ by.
    """
    return (found[0] > committed[2] and found[1] > committed[0]
            and found[0] > committed[0] * (1 + NOISE_FLOOR))


def compare(found, committed, workloads, pairs, rounds):
    """(lines, number of ratios that are worse or were not found) of what was to be compared."""
    lines, count = [], 0
    for workload in workloads:
        for pair in pairs:
            then, now = committed[workload][pair], found.get(workload, {}).get(pair)
            if not now or now[5] < needed(workload, rounds):
                lines.append(f"! {workload:14} {pair:15} not compared: "
                             f"{now[5] if now else 0} of {rounds} rounds succeeded")
                count += 1
                continue
            bad = worse(now, then)
            count += bad
            lines.append(f"{'! ' if bad else '  '}{workload:14} {pair:15} committed {show(then)}  "
                         f"found {show(now)}  {'worse' if bad else 'ok'}")
    return lines, count


def show(values, digits=2):
    """median (low–high)"""
    middle, low, high = (f"{value:.{digits}f}" for value in values[:3])
    return f"{middle} ({low}–{high})"


def show_all(values, digits=2):
    """median [smallest–largest]"""
    middle, low, high = (f"{values[index]:.{digits}f}" for index in (0, 3, 4))
    return f"{middle} [{low}–{high}]"


def show_both(values, digits=2):
    """median (low–high) [smallest–largest]"""
    return f"{show(values, digits)} {show_all(values, digits).partition(' ')[2]}"
