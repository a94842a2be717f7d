"""The list of samplers: a sampler is one file here and one line of this list, its name being that of its file.

What the file holds is said in `models.samplers.sampler`. The API's schema, the command line, the page, `evaluate` and
what cards and requests may name derive from the list. Nothing is imported here, so it costs nothing to ask for a name.
"""

NAMES = (
    "annealed_langevin",
    "langevin",
    "follow_scores",
    "consistent_annealed",
    "ancestral",
    "euler",
    "adams_bashforth",
    "heun",
    "multistep_consistency",
    "repaint",
    "dpmpp_2m_sde",
)
KNOWING = "repaint"  # where a card does not say what images are made by of which something is known
USUAL = "annealed_langevin"  # where a request or a card has settings without a name, or none
# What models with a score at all noise levels are sampled by for a comparison, or where nothing is known of them.
COMPARED = "heun"
