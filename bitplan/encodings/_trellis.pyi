import numpy as np
from numpy.typing import NDArray

version: str
interface: int

def nearest_registers(
    costs: NDArray[np.float32], shifts: NDArray[np.int64], table: NDArray[np.uint8]
) -> NDArray[np.int64]: ...
