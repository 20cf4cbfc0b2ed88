"""The routes, by what they are about."""

from service.api.routes import forward, jobs, models, system, train

ROUTERS = [models.router, train.router, forward.router, jobs.router, system.router]
