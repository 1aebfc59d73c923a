#!/usr/bin/env python3
"""Compares two summaries of k6: python3 compare.py BEFORE.json AFTER.json [--worse PERCENT]

Prints every figure of Martlet's own metrics side by side. Ends with 1 if a threshold that was kept before is missed after, or if p(95) or p(99)
of a time grew by more than so many percent (20 unless told).
"""

import argparse
import json
import sys


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)["metrics"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{path} is not a summary of k6: {error}")


def kept(metric):
    return {rule: outcome["ok"] for rule, outcome in metric.get("thresholds", {}).items()}


def main():
    parser = argparse.ArgumentParser(description="Compares two summaries of k6.")
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--worse", type=float, default=20.0, metavar="PERCENT", help="how much a time may grow (default: 20)")
    arguments = parser.parse_args()
    before, after = read(arguments.before), read(arguments.after)
    faults = []
    names = sorted(name for name in before.keys() | after.keys() if name.startswith("martlet_"))
    for name in names:
        if name not in before or name not in after:
            faults.append(f"{name} is in one of the two only")
            continue
        old, new = before[name], after[name]
        for rule, ok in kept(new).items():
            if not ok and kept(old).get(rule, True):
                faults.append(f"{name}: {rule} is missed now")
        for key in old["values"].keys() & new["values"].keys():
            was, now = old["values"][key], new["values"][key]
            change = f"{(now - was) / was * 100:+.1f} %" if was else ""
            print(f"{name:<26} {key:<8} {was:>14.3f} {now:>14.3f}  {change}")
            if old.get("contains") == "time" and key in ("p(95)", "p(99)") and now > was * (1 + arguments.worse / 100):
                faults.append(f"{name}: {key} grew from {was:.1f} to {now:.1f}")
    for fault in faults:
        print(f"worse: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
