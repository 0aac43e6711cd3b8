"""
One image, adapted
==================

What does it look like?
"""

import matplotlib.pyplot as plt

plt.plot([1, 2])
