"""``irope explain``: what a policy attends to, block by block, without a model. Standard library only.

`trace` runs a policy through its schedule; `render_text` and `render_svg` show the rows, `diff` compares two policies.
Long stationary stretches are told in one line.
"""

from irope.explain.compare import Comparison as Comparison
from irope.explain.compare import diff as diff
from irope.explain.compare import render_diff as render_diff
from irope.explain.rows import Row as Row
from irope.explain.rows import trace as trace
from irope.explain.svg import render_svg as render_svg
from irope.explain.text import render_text as render_text
