"""The routes, by what they are about."""

from service.api.routes import (
    adapters,
    analysis,
    bases,
    datasets,
    forward,
    jobs,
    limits,
    mixed,
    models,
    oip,
    page,
    profile,
    sweeps,
    system,
    train,
    versions,
)

# Matched in this order, so the call that is made most often comes first.
ROUTERS = [
    forward.router,
    mixed.router,
    oip.router,
    models.router,
    adapters.router,
    versions.router,
    bases.router,
    train.router,
    profile.router,
    analysis.router,
    jobs.router,
    datasets.router,
    sweeps.router,
    limits.router,
    page.router,
    system.router,
]
