"""A result folder as one HTML page that works offline: what was asked, chosen, predicted, measured and proven.

`folder` reads the files, `facts` makes one JSON object of them, and everything shown is taken from that object: `page` by
`figures`, the plots by `charts`, which make drawings that are written as SVG (`drawing`) and as PNG (`raster`).
"""
