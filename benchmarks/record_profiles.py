"""Records the device profiles that the package brings (profiles/recorded/): typical layers at several levels of kernels.

    python benchmarks/record_profiles.py --levels avx512vnni avx2 --networks 6 --out profiles/recorded   # idle machine, 4 minutes

The levels are timed in turn, network by network of the survey (profiles/survey.py), so that all have the same layers and the same
hour. What is written is rounded to four digits and compressed. A level that this machine does not have is an error.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bitplan.policies.menu import menu_for
from bitplan.profiles.device import DeviceProfile
from bitplan.profiles.measure_latency import measure
from bitplan.profiles.survey import survey_networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", nargs="+", default=["avx512vnni", "avx2"], help="levels of kernels, best first")
    parser.add_argument("--networks", type=int, default=6, help="so many of the survey's networks")
    parser.add_argument("--seconds", type=float, default=210, help="no further network is begun after so many")
    parser.add_argument("--out", type=Path, default=Path("profiles/recorded"), help="folder of LEVEL.arrow")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, DeviceProfile] = {}
    begun = time.monotonic()
    for number, network in enumerate(survey_networks()[: options.networks], 1):
        spent = time.monotonic() - begun
        if spent * number > options.seconds * max(number - 1, 1):  # the next one would end too late
            break
        for level in options.levels:
            found[level] = measure(network, menu_for(network), profile=found.get(level), isa=level)
            found[level].save(options.out / f"{level}.arrow", compact=True)
            print(f"{level}, network {number}: {len(found[level].entries)} steps, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
