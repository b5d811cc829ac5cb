"""Gathers the records of one bench/run.sh into one JSON file and prints ours beside PyTorch's."""

import datetime
import json
import pathlib
import statistics
import sys


def merged(turns):
    """One record of several turns of a program: the median over the timings of all."""
    record = dict(turns[0])
    record["seconds"] = [seconds for turn in turns for seconds in turn["seconds"]]
    record["peak_rss_mib"] = max(turn["peak_rss_mib"] for turn in turns)
    median, best = statistics.median(record["seconds"]), min(record["seconds"])
    batch = record["batch"]
    of_all = {"median_s": median, "median_seconds": median, "best_s": best, "img_per_s": batch / median,
              "images_per_second": batch / median, "best_images_per_second": batch / best}
    record.update((key, value) for key, value in of_all.items() if key in record)
    return record


def read(folder):
    """The records of all programs: NAME.json, or NAME.TURN.json."""
    turns = {}
    for path in sorted(folder.glob("*.json")):
        turns.setdefault(path.name.split(".")[0], []).append(json.loads(path.read_text()))
    return {name: merged(records) if "seconds" in records[0] else records[0] for name, records in turns.items()}


def main():
    folder, out, commit = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    records = read(folder)
    report = {"date": datetime.date.today().isoformat(), "commit": commit, "records": records, "ratios": {}}
    print(f"{'':44}{'sgm':>12}{'PyTorch':>12}{'ratio':>8}{'sgm MiB':>10}{'PyTorch':>10}")
    for name, ours in records.items():
        if not name.startswith("sgm-"):
            continue
        theirs = records[name.replace("sgm-", "torch-").replace("-lean", "").rsplit("-", 1)[0] + "-f32"]
        ratio = ours["img_per_s"] / theirs["images_per_second"]
        memory = theirs["peak_rss_mib"]
        report["ratios"][name[4:]] = ratio
        print(f"{name[4:]:44}{ours['img_per_s']:8.2f}/s  {theirs['images_per_second']:8.2f}/s  {ratio:6.2f}"
              f"{ours['peak_rss_mib']:10.0f}{memory:10.0f}")
    for name in ("train", "forward"):
        f32, bf16 = (records[f"sgm-ve_cifar10_ncsnpp_continuous-{name}-{p}"]["img_per_s"] for p in ("f32", "bf16"))
        report["ratios"][f"bf16 over f32, {name}"] = bf16 / f32
        print(f"bf16 over f32, {name}: {bf16 / f32:.2f}")
    pathlib.Path(out).write_text(json.dumps(report, indent=1) + "\n")


main()
