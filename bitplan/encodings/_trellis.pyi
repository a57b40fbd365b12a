import numpy as np
from numpy.typing import NDArray

def nearest_registers(
    costs: NDArray[np.float32], shifts: NDArray[np.int64], table: NDArray[np.uint8]
) -> NDArray[np.int64]: ...
