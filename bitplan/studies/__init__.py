"""`optimize study`: what its knobs mean for a network, how a trial is carried out, and what is told of it."""
