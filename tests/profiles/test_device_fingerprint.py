"""The fingerprint of a machine and its kernels."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from bitplan.profiles import fingerprint as fingerprint_module
from bitplan.profiles.fingerprint import IDENTITY, Fingerprint, this_machine

CPUINFO = """\
processor\t: 0
model name\t: A Processor 9000
cpu family\t: 25
model\t\t: 17
stepping\t: 1
flags\t\t: fpu avx2 fma avx512_vnni amx_tile something_new

processor\t: 1
model name\t: Another
"""


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Files of the system, as far as a fingerprint reads them; others cannot be read."""
    found = {"/proc/cpuinfo": CPUINFO}
    monkeypatch.setattr(fingerprint_module, "_read", lambda path: found.get(path, ""))
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    kernels = SimpleNamespace(active_isa=lambda: "avx2", kernel_version="3")
    monkeypatch.setitem(sys.modules, "bitplan.kernels.compiled", SimpleNamespace(_runtime=kernels))
    return found


def test_it_names_the_processor_its_features_and_the_kernels_in_use(files: dict[str, str]) -> None:
    files["/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"] = "performance\n"
    here = this_machine()
    assert here.cpu == "A Processor 9000 (cpu family 25, model 17, stepping 1)"
    assert here.features == ("avx2", "fma", "avx512_vnni", "amx_tile")
    assert (here.isa, here.cores, here.kernel_version, here.governor) == ("avx2", 6, "3", "performance")
    assert here.matches(this_machine())
    assert this_machine("portable").isa == "portable"


def test_what_cannot_be_read_is_left_empty(files: dict[str, str]) -> None:
    files.clear()
    here = this_machine()
    assert here.cpu
    assert (here.features, here.governor) == ((), "")


def test_json_round_trip() -> None:
    one = Fingerprint("cpu", ("avx2",), "avx2", 2, "1", "performance", "3.12", "0.1")
    assert Fingerprint.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("change", [{"cores": "2"}, {"features": "avx2"}, {"cpu": None}, {"surplus": 1}])
def test_impossible_fingerprints_are_refused(change: dict[str, object]) -> None:
    one = Fingerprint("cpu", ("avx2",), "avx2", 2, "1").to_json()
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_json(one | change)


def test_only_the_identity_enters_the_hash() -> None:
    one = Fingerprint("cpu", ("avx2",), "avx2", 2, "1")
    for name in Fingerprint.__slots__:
        other = Fingerprint.from_json(
            one.to_json() | {name: 9 if name == "cores" else ["x"] if name == "features" else "x"}
        )
        assert (other.hash != one.hash) == (name in IDENTITY)
        assert other.matches(one) == (name not in IDENTITY)
