"""How certain networks are of their calibration images at each temperature, and which one losses are measured at.

BITPLAN_TEST_DATA=DIR python benchmarks/temperature.py [NETWORK ...]
"""

from __future__ import annotations

import argparse

import numpy as np
from networks import cases, simulated

from bitplan.profiles.metrics import log_probabilities, softened
from bitplan.profiles.temperature import TEMPERATURES, fitting_temperature, relative_entropy
from bitplan.simulate import Simulator

IMAGES = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet20"])
    for case in cases(parser.parse_args().networks):
        outputs = simulated(Simulator(case.network, case.weights), case.calibration[:IMAGES], case.batch)
        chosen = fitting_temperature(case.network, "kl", {case.network.outputs[0]: outputs})
        print(f"{case.name}: {chosen:g} is chosen")
        for temperature in TEMPERATURES:
            log_p = softened(log_probabilities(outputs), temperature)
            confidence = 100 * np.exp(log_p.max(1)).mean()
            print(f"  T = {temperature:g}: entropy {relative_entropy(log_p):.3f}, confidence {confidence:.1f} %")


if __name__ == "__main__":
    main()
