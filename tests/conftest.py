"""What holds for every test."""

from hypothesis import HealthCheck, settings

# How fast a busy machine finds and runs an example is not what is tried. All else is hypothesis's own: where CI is set
# it takes the same examples each time, so that a change fails for what it changed.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
