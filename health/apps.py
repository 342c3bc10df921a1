from django.apps import AppConfig


class HealthConfig(AppConfig):
    name = "health"
    verbose_name = "Health"

    def ready(self) -> None:
        from health.selectors import journal
        from health.why import checks
        from registry import timeline, why

        why.provide("check", checks)
        timeline.provide(journal)
