#!/usr/bin/env python3
"""What the demo asks without the client: ask.py ready URL | settle URL | model REPORT.json | change RUNS.csv"""
import csv
import json
import sys
import urllib.error
import urllib.request

WORDS = {"logistic": "the model", "last_outcome": "rule: as the last run", "change_size": "rule: size of change", "base_rate": "share of failures"}


def post(url):
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=120).read()


def is_ready(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}f}"


def show(report):
    judgement = report["judgement"]
    evaluation = judgement["evaluation"]
    print(f"  {evaluation['examples']} labelled runs; {evaluation['predicted']} of them were predicted from what was known before each;")
    print(f"  the judgement rests on the newest {evaluation['window']}:")
    print(f"  {'':24}{'AUC':>8}{'Brier':>8}{'calibration error':>20}{'failures in the riskiest 10 %':>32}")
    for who, scores in evaluation["recent"]:
        lift = scores["lift"][1]
        more = "-" if lift is None else f"{lift:.1f} times the average"
        print(f"  {WORDS[who]:24}{number(scores['auc']):>8}{number(scores['brier']):>8}{number(scores['calibration_error']):>20}{more:>32}")
    print("  (AUC: 0.5 is guessing, 1 is perfect. Brier and calibration error: smaller is better.)")
    for rule, auc, brier in evaluation["gains"]:
        ends = [f"{name} {gain['value']:+.3f} (95 %: {gain['low']:+.3f} to {gain['high']:+.3f})" for name, gain in (("AUC", auc), ("Brier", brier))]
        print(f"  Gain over \"{WORDS[rule]}\": {', '.join(ends)}")
    print(f"  Served: {WORDS[judgement['served']]}, because {judgement['reason']}")
    print(f"  Version {report['model_version']}")


match sys.argv[1:]:
    case ["ready", url]:
        sys.exit(0 if is_ready(f"{url}/readyz") else 1)
    case ["settle", url]:
        post(f"{url}/api/v1/settle")
    case ["model", path]:
        with open(path, encoding="utf-8") as file:
            show(json.load(file))
    case ["change", path]:
        with open(path, newline="", encoding="utf-8") as file:
            *_, newest = csv.DictReader(file)
        numbers = [name for name in newest if name.startswith(("git_", "gh_")) and name not in ("gh_is_pr", "gh_build_started_at")]
        print("\n".join(f"{name}={newest[name]}" for name in numbers))
    case _:
        sys.exit(__doc__)
