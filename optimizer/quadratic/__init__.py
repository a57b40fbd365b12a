"""Quadratic programs whose pair costs join most groups: search for incumbents, a relaxation for bounds."""
